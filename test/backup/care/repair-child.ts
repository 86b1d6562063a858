import { repairVault } from '../../../src/backup/care/repair-vault.ts';
import { everything } from '../../../src/backup/care/sample.ts';
import { systemClock } from '../../../src/base/clock.ts';
import { createLog } from '../../../src/base/log.ts';
import { FileStore } from '../../../src/vault/file-store.ts';

/**
 * The repair alone in a process: `repair-child.ts EAST WEST SHIFT_MS STOP_AT`. Kills itself (SIGKILL) while its write number STOP_AT to
 * the west vault is under way; without STOP_AT it says how much it has done.
 */
const [east = '', west = '', shift = '0', stopAt = ''] = process.argv.slice(2);
let writes = 0;

class KilledStore extends FileStore {
  override async create(...args: Parameters<FileStore['create']>) {
    return await this.#kill(super.create(...args));
  }
  override async overwrite(...args: Parameters<FileStore['overwrite']>) {
    await this.#kill(super.overwrite(...args));
  }
  override async delete(...args: Parameters<FileStore['delete']>) {
    await this.#kill(super.delete(...args));
  }
  async #kill<T>(working: Promise<T>): Promise<T> {
    if (++writes === Number(stopAt)) setImmediate(() => process.kill(process.pid, 'SIGKILL'));
    return await working;
  }
}

const store = new KilledStore({ name: 'west', region: 'region-west', root: west });
const others = [new FileStore({ name: 'east', region: 'region-east', root: east })];
const clock = { now: () => Date.now() + Number(shift), sleep: systemClock.sleep };
const { mended, copied, walCopied, failed, check } = await repairVault({
  store,
  others,
  policies: new Map(),
  data: everything,
  clock,
  log: createLog('fatal'),
});
const left = check.problems.map(({ key }) => key);
process.stdout.write(
  `${JSON.stringify({ writes, mended: mended.length, copied: copied.length, walCopied, failed: failed.length, left })}\n`,
);
