import { createHash } from 'node:crypto';
import { constants } from 'node:fs';
import { access, mkdir, open, readFile, rename, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { codeOf, DrError, fileError } from '../base/errors.ts';
import type { SwitchConfig } from '../config/types.ts';
import type { HealthSwitch, SwitchContent } from './switch.ts';

/** A lock that is older was left by a writer that died: a write takes milliseconds. */
const staleMs = 10_000;

/** A file that a web server of the recovery site serves to the health checks. */
export class FileSwitch implements HealthSwitch {
  readonly where: string;

  constructor(config: Pick<SwitchConfig, 'url'>) {
    this.where = fileURLToPath(config.url);
  }

  async read(signal?: AbortSignal): Promise<SwitchContent | undefined> {
    signal?.throwIfAborted();
    try {
      const text = await readFile(this.where, 'utf8');
      return { text, tag: createHash('sha256').update(text).digest('hex') };
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return undefined;
      throw fileError(error, this.where, 'read the switch of the health checks');
    }
  }

  async write(text: string, replaces: string | undefined, signal?: AbortSignal): Promise<'written' | 'changed'> {
    const fresh = `${this.where}.new`;
    try {
      await mkdir(dirname(this.where), { recursive: true });
      await this.#lock();
      try {
        signal?.throwIfAborted();
        const present = await this.read(signal);
        if (present?.tag !== replaces) return 'changed';
        const file = await open(fresh, 'w', 0o644);
        try {
          await file.writeFile(text);
          await file.sync();
        } finally {
          await file.close();
        }
        await rename(fresh, this.where);
        const directory = await open(dirname(this.where), 'r');
        await directory.sync().finally(() => directory.close());
        return 'written';
      } finally {
        await rm(`${this.where}.lock`, { force: true });
      }
    } catch (error) {
      throw fileError(error, this.where, 'write the switch of the health checks');
    }
  }

  async checkWrite(): Promise<void> {
    try {
      await access(dirname(this.where), constants.W_OK);
    } catch (error) {
      throw fileError(error, dirname(this.where), 'write the switch of the health checks');
    }
  }

  close(): void {}

  async #lock(): Promise<void> {
    const path = `${this.where}.lock`;
    for (let attempt = 1; ; attempt++) {
      try {
        await (await open(path, 'wx')).close();
        return;
      } catch (error) {
        if (codeOf(error) !== 'EEXIST') throw error;
        const age = await stat(path).then(
          ({ mtimeMs }) => Date.now() - mtimeMs,
          () => undefined,
        );
        if (age !== undefined && age > staleMs) await rm(path, { force: true });
        else if (attempt > 1) {
          throw new DrError('unreachable', 'somebody else is writing the switch of the health checks', {
            where: this.where,
            next: 'Run the command again.',
            cause: error,
          });
        }
      }
    }
  }
}
