import { DrError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { HealthSwitch, SwitchContent, SwitchDocument } from './switch.ts';
import { readDocument, writeDocument } from './switch.ts';

/** What one switch says, or why it says nothing. */
export type SwitchLook =
  | {
      readonly at: HealthSwitch;
      readonly content: SwitchContent | undefined;
      readonly document: SwitchDocument | undefined;
    }
  | { readonly at: HealthSwitch; readonly error: DrError };

/** What all switches say together. */
export interface SwitchState {
  /** Decided as the health check decides: the secondary only when the majority of all switches names it. */
  readonly site: string;
  /** Highest number of any document; 0 when there is none. */
  readonly generation: number;
  readonly looks: readonly SwitchLook[];
}

export interface SwitchesOptions {
  readonly switches: readonly HealthSwitch[];
  readonly primary: string;
  readonly secondary: string;
  readonly target: string;
  readonly log: Log;
}

/**
 * One document, or several in different regions of which the majority counts: then neither the loss of any one region nor
 * an old document in a region that comes back moves traffic.
 */
export class HealthSwitches {
  readonly #options: SwitchesOptions;
  readonly #majority: number;

  constructor(options: SwitchesOptions) {
    this.#options = options;
    this.#majority = Math.floor(options.switches.length / 2) + 1;
  }

  /** Throws `unreachable` when so many do not answer that the others decide nothing. */
  async read(signal: AbortSignal | undefined): Promise<SwitchState> {
    const { primary, secondary, target } = this.#options;
    const looks = await this.look(signal);
    const heard = looks.flatMap((look) => ('error' in look ? [] : [look]));
    const silent = looks.flatMap((look) => ('error' in look ? [look] : []));
    const [first] = silent;
    if (heard.length < this.#majority && first) {
      const { kind, next, retryable } = first.error;
      throw new DrError(
        kind,
        `${silent.length} of ${looks.length} switches give no answer: ${silent.map(({ at, error }) => `${at.where}: ${error.message}`).join('; ')}`,
        { where: target, ...(next === undefined ? {} : { next }), cause: first.error, retryable },
      );
    }
    const documents = heard.map(({ document }) => document);
    const away = documents.filter((document) => document?.site === secondary).length;
    return {
      site: away >= this.#majority ? secondary : primary,
      generation: Math.max(0, ...documents.map((document) => document?.generation ?? 0)),
      looks,
    };
  }

  /** Asks every switch; never throws except when the caller stopped. */
  async look(signal: AbortSignal | undefined): Promise<readonly SwitchLook[]> {
    return await Promise.all(
      this.#options.switches.map(async (at): Promise<SwitchLook> => {
        try {
          const content = await at.read(signal);
          return { at, content, document: content && readDocument(content, at.where) };
        } catch (error) {
          if (signal?.aborted) throw this.#interrupted(signal);
          if (!(error instanceof DrError)) throw error;
          return { at, error };
        }
      }),
    );
  }

  /** Whether every switch that answers names the site already; no document is as good as one that names the primary. */
  agrees({ looks }: SwitchState, site: string): boolean {
    return looks.every((look) => 'error' in look || this.#named(look.document) === site);
  }

  /**
   * Writes the site into every switch that answers and names another. `changed`: somebody else wrote in between. Throws
   * `unreachable` when the majority did not take it; the next call goes on where this one ended.
   */
  async write(
    state: SwitchState,
    site: string,
    nowMs: number,
    signal: AbortSignal | undefined,
  ): Promise<'written' | 'changed'> {
    const { log, target } = this.#options;
    const document = {
      site,
      format: 1,
      generation: state.generation + 1,
      changedAt: new Date(nowMs).toISOString(),
    } as const;
    const text = writeDocument(document);
    const outcomes = await Promise.all(
      state.looks.map(async (look): Promise<'written' | 'changed' | DrError> => {
        if ('error' in look) return look.error;
        if (this.#named(look.document) === site) return 'written';
        try {
          return await look.at.write(text, look.content?.tag, signal);
        } catch (error) {
          if (signal?.aborted) throw this.#interrupted(signal);
          if (error instanceof DrError) return error;
          throw error;
        }
      }),
    );
    if (outcomes.includes('changed')) return 'changed';
    const errors = outcomes.filter((outcome) => outcome instanceof DrError);
    const written = outcomes.length - errors.length;
    const [first] = errors;
    if (first === undefined) return 'written';
    if (written >= this.#majority) {
      log.warn(
        { errors: errors.map(({ message, where }) => ({ message, where })) },
        'a switch was not reached; the majority counts',
      );
      return 'written';
    }
    throw new DrError(first.kind, `only ${written} of ${outcomes.length} switches took the change: ${first.message}`, {
      where: target,
      next: `${first.next ?? 'Reach the others.'} Then run the command again.`,
      cause: first,
      retryable: first.retryable,
    });
  }

  close(): void {
    for (const at of this.#options.switches) at.close();
  }

  #named(document: SwitchDocument | undefined): string {
    return document?.site ?? this.#options.primary;
  }

  #interrupted(signal: AbortSignal): DrError {
    return new DrError('interrupted', 'the work on the switches was stopped', {
      where: this.#options.target,
      cause: signal.reason,
    });
  }
}
