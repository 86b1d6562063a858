import { WalArchiver, type WalArchiverOptions } from '../backup/wal/archiver.ts';
import type { WalArchiverStatus } from '../backup/wal/status.ts';
import type { Service } from './service.ts';

export interface WalServiceOptions extends WalArchiverOptions {
  /** Streaming has begun, or goes on, for this PostgreSQL system: called once for each system and timeline. */
  onLineage?(systemId: string, timeline: number): void;
}

/** How often it is looked which lineage is streamed. */
const LOOK_EVERY_MS = 1000;

/**
 * Service: the WAL archiver of one database. An archiver that has stopped for good (another history under the same name) counts as
 * failed: it begins anew after a pause, so that it goes on by itself once a person has put things right.
 */
export class WalService implements Service {
  readonly name: string;
  readonly resource: string;
  readonly #options: WalServiceOptions;
  #archiver: WalArchiver | undefined;
  #timer: NodeJS.Timeout | undefined;
  #lineage = '';
  #ended: (() => void) | undefined;

  constructor(options: WalServiceOptions) {
    this.name = `wal ${options.resource}`;
    this.resource = options.resource;
    this.#options = options;
  }

  status(): WalArchiverStatus | undefined {
    return this.#archiver?.status();
  }

  async run(): Promise<void> {
    let archiver: WalArchiver | undefined;
    try {
      await new Promise<void>((resolve, reject) => {
        this.#ended = resolve;
        archiver = new WalArchiver({
          ...this.#options,
          onFatal: (error) => {
            this.#options.onFatal?.(error);
            reject(error);
          },
        });
        this.#archiver = archiver;
        archiver.start();
        this.#timer = setInterval(() => this.#look(), LOOK_EVERY_MS);
      });
    } catch (error) {
      await archiver?.stop({ drain: false });
      throw error;
    } finally {
      clearInterval(this.#timer);
    }
  }

  async stop(graceMs: number): Promise<void> {
    await this.#archiver?.stop({ drain: graceMs > 0 });
    this.#ended?.();
  }

  #look(): void {
    const status = this.#archiver?.status();
    if (status?.state !== 'streaming' || status.systemId === undefined || status.timeline === undefined) return;
    const lineage = `${status.systemId}/${status.timeline}`;
    if (lineage === this.#lineage) return;
    this.#lineage = lineage;
    this.#options.onLineage?.(status.systemId, status.timeline);
  }
}
