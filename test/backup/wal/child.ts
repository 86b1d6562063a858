import { WalArchiver } from '../../../src/backup/wal/archiver.ts';
import { systemClock } from '../../../src/base/clock.ts';
import { createLog } from '../../../src/base/log.ts';
import { FileStore } from '../../../src/vault/file-store.ts';
import { SealPool } from '../../../src/vault/seal-pool.ts';

/** The archiver alone in a process, to be killed: `child.ts URL RECIPIENT EAST WEST`. Says `streaming` when it is. */
const [url = '', recipient = '', ...directories] = process.argv.slice(2);
const log = createLog('info');
// Not openVault: it would load the S3 client each time.
const stores = directories.map((root, i) => {
  const name = i === 0 ? 'east' : 'west';
  return new FileStore({ name, region: `region-${name}`, root, log });
});
const archiver = new WalArchiver({
  resource: 'orders',
  url,
  slot: 'dr',
  flushEveryMs: 20,
  durable: 'all',
  stores,
  keyPolicy: { recipients: [recipient] },
  pool: new SealPool(1),
  compressionLevel: 1,
  site: 'east',
  log,
  retryBaseMs: 20,
  retryMaxMs: 100,
});
archiver.start();
while (archiver.status().state !== 'streaming') await systemClock.sleep(2);
process.stdout.write('streaming\n');
// Keeps the process alive: the archiver's own timers do not have to.
await new Promise((resolve) => setTimeout(resolve, 600_000));
