import { WalArchiver } from '../../src/backup/wal/archiver.ts';
import { systemClock } from '../../src/base/clock.ts';
import { createLog } from '../../src/base/log.ts';
import { openVault } from '../../src/vault/open.ts';
import { SealPool } from '../../src/vault/seal-pool.ts';

/** The archiver of the old site, to be killed with it: `archiver-child.ts URL RECIPIENT EAST WEST`. Says `streaming` when it is. */
const [url = '', recipient = '', ...directories] = process.argv.slice(2);
const log = createLog('warn');
const stores = directories.map((directory, i) =>
  openVault(
    {
      name: i === 0 ? 'east' : 'west',
      region: `region-${i}`,
      url: `file://${directory}`,
      endpoint: undefined,
      forcePathStyle: false,
      credentials: undefined,
    },
    log,
  ),
);
const archiver = new WalArchiver({
  resource: 'orders',
  url,
  slot: 'dr',
  flushEveryMs: 100,
  durable: 'all',
  stores,
  keyPolicy: { recipients: [recipient] },
  pool: new SealPool(1),
  compressionLevel: 1,
  site: 'east',
  log,
});
archiver.start();
while (archiver.status().state !== 'streaming') await systemClock.sleep(5);
process.stdout.write('streaming\n');
await new Promise((resolve) => setTimeout(resolve, 600_000));
