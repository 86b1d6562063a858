import { closeSync, mkdirSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { generateIdentity, identityToRecipient } from 'age-encryption';
import { takeDirectoryBackup } from '../src/backup/take-directory.ts';
import { WalSealer } from '../src/backup/wal/sealer.ts';
import { systemClock } from '../src/base/clock.ts';
import { setFileAttributes } from '../src/base/file-attributes.ts';
import { silentLog } from '../src/base/log.ts';
import { enrolVault } from '../src/vault/enrol.ts';
import { FileStore } from '../src/vault/file-store.ts';
import { createDataKey } from '../src/vault/keys.ts';
import { FORMAT_VERSION } from '../src/vault/layout.ts';
import { sha256 } from '../src/vault/seal.ts';
import { SealPool } from '../src/vault/seal-pool.ts';

// Makes test/fixtures/vault-<format>: a small vault that every later version of dr must read. Run once for each new format,
// never again for an old one: what is committed is what was written then.

const MIB = 1024 * 1024;
const root = fileURLToPath(new URL(`../test/fixtures/vault-${FORMAT_VERSION}`, import.meta.url));
rmSync(root, { recursive: true, force: true });
const source = path.join(root, '..', '.source');
rmSync(source, { recursive: true, force: true });
mkdirSync(path.join(source, 'folder'), { recursive: true });
writeFileSync(path.join(source, 'hello.txt'), 'hello, later versions\n');
writeFileSync(
  path.join(source, 'folder', 'binary'),
  Buffer.from(Array.from({ length: 5000 }, (_, i) => (i * 7) % 256)),
);
// Compared by blocks, of which the second backup has changed two: its extents are pieces of runs of both.
const large = path.join(source, 'large');
writeFileSync(large, Buffer.alloc(5 * MIB, 'once upon a time '));
const attribute = { name: Buffer.from('user.origin'), value: Buffer.from('the beginning') };
setFileAttributes(Buffer.from(path.join(source, 'hello.txt')), 'file', {
  mode: 0o644,
  owner: undefined,
  mtimeNs: 1_700_000_000_123_456_789n,
  extended: [attribute],
});
const identity = await generateIdentity();
const store = new FileStore({ name: 'old', region: 'somewhere', root: path.join(root, 'vault') });
await enrolVault(store);
const pool = new SealPool(1);
const recipients = [await identityToRecipient(identity)];
const context = {
  stores: [store],
  keyPolicy: { recipients },
  pool,
  site: 'east',
  tool: 'dr 0.1.0',
  scratch: path.join(root, '..', '.scratch'),
  compressionLevel: 3,
  partBytes: 16 * 1024 * 1024,
  clock: systemClock,
  log: silentLog,
};
const directory = { kind: 'data' as const, path: source, exclude: [], allowEmpty: false };
const plain = { ...context, keyPolicy: 'none' as const };
await takeDirectoryBackup(context, { ...directory, name: 'uploads' });
await takeDirectoryBackup(plain, { ...directory, name: 'plain' });
const file = openSync(large, 'r+');
for (const position of [MIB, 4 * MIB + 1]) writeSync(file, 'and then it was changed', position);
closeSync(file);
await takeDirectoryBackup(context, { ...directory, name: 'uploads' });
await takeDirectoryBackup(plain, { ...directory, name: 'plain' });
const wal = await createDataKey(context.keyPolicy, Date.now(), 'wal/7711238064300980214');
if (!wal) throw new Error('no key');
await store.create(wal.objectKey, wal.object);
const sealer = new WalSealer({ systemId: '7711238064300980214', key: wal.key, pool, level: 3 });
const piece = Buffer.alloc(3000, 'WAL of old');
const { object } = await sealer.seal(
  {
    timeline: 1,
    start: 0x1000000n,
    segmentBytes: 16 * 1024 * 1024,
    rawSha256: sha256(piece).toString('hex'),
    serverClockMs: 1,
    endClockMs: 1,
  },
  [{ view: piece }],
);
await store.create(object.key, object.body);
writeFileSync(path.join(root, 'identity.txt'), `# Made for this fixture only: it opens nothing else.\n${identity}\n`);
await pool.close();
rmSync(source, { recursive: true });
rmSync(context.scratch, { recursive: true });
