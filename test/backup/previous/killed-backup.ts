import { takeDirectoryBackup } from '../../../src/backup/take-directory.ts';
import { systemClock } from '../../../src/base/clock.ts';
import { silentLog } from '../../../src/base/log.ts';
import { FileStore } from '../../../src/vault/file-store.ts';
import { SealPool } from '../../../src/vault/seal-pool.ts';
import { FaultyStore } from '../faulty-store.ts';

// A backup that kills itself, as the power failing would, just before its n-th object is created in the second vault.

const [east = '', west = '', root = '', scratch = '', recipient = '', at = '0'] = process.argv.slice(2);
let left = Number(at);
const stores = [east, west].map((place, i) => {
  const store = new FaultyStore(new FileStore({ name: i === 0 ? 'east' : 'west', region: `${i}`, root: place }));
  if (i === 1) {
    store.before = (kind) => {
      if (kind === 'create' && --left <= 0) process.kill(process.pid, 'SIGKILL');
    };
  }
  return store;
});
const pool = new SealPool(1);
const context = {
  stores,
  keyPolicy: { recipients: [recipient] },
  pool,
  site: 'east',
  tool: 'dr test',
  compressionLevel: 1,
  partBytes: 512 * 1024,
  scratch,
  clock: systemClock,
  log: silentLog,
};
await takeDirectoryBackup(context, { name: 'uploads', kind: 'data', path: root, exclude: [], allowEmpty: false });
await pool.close();
