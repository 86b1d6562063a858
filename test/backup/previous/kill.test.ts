import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { generateIdentity, identityToRecipient } from 'age-encryption';
import { expect, it } from 'vitest';
import { listBackupIds, readManifest } from '../../../src/backup/catalog.ts';
import { restoreBackup } from '../../../src/backup/restore.ts';
import { takeDirectoryBackup } from '../../../src/backup/take-directory.ts';
import { systemClock } from '../../../src/base/clock.ts';
import { silentLog } from '../../../src/base/log.ts';
import { FileStore } from '../../../src/vault/file-store.ts';
import { KeyRing } from '../../../src/vault/keys.ts';
import { SealPool } from '../../../src/vault/seal-pool.ts';
import { tempDir } from '../../harness/temp.ts';
import { contentOf, KIB, MIB, Random, writeAt } from './world.ts';

const child = fileURLToPath(new URL('killed-backup.ts', import.meta.url));

it('killed before any of its objects, a backup leaves the next one right in each vault', async () => {
  const base = await tempDir('kill');
  const at = (name: string) => path.join(base, name);
  const identity = await generateIdentity();
  const recipient = await identityToRecipient(identity);
  mkdirSync(at('content'));
  const random = new Random(9);
  writeFileSync(at('content/large'), random.bytes(5 * MIB));
  for (let n = 0; n < 10; n++) writeFileSync(at(`content/${n}`), random.bytes(100 * n));
  const stores = ['east', 'west'].map((name) => new FileStore({ name, region: name, root: at(name) }));
  for (const store of stores) await store.prepare();
  const pool = new SealPool(1);
  const context = {
    stores,
    keyPolicy: { recipients: [recipient] },
    pool,
    site: 'east',
    tool: 'dr test',
    compressionLevel: 1,
    partBytes: 512 * KIB,
    scratch: at('scratch'),
    clock: systemClock,
    log: silentLog,
  };
  const source = { name: 'uploads', kind: 'data' as const, path: at('content'), exclude: [], allowEmpty: false };
  await takeDirectoryBackup(context, source);
  const wanted = new Map<string, Map<string, string>>();
  let torn = 0;
  // Key, one part, index, manifest; the fifth never comes.
  for (const killAt of [1, 2, 3, 4, 5]) {
    writeAt(at('content/large'), random.below(5 * MIB), random.bytes(100));
    const before = await listBackupIds(stores[0] ?? fail(), 'uploads');
    const running = spawn(
      process.execPath,
      [child, at('east'), at('west'), at('content'), at('scratch'), recipient, `${killAt}`],
      { stdio: 'inherit' },
    );
    const [, signal] = await once(running, 'exit');
    expect(signal).toBe(killAt < 5 ? 'SIGKILL' : null);
    // The manifest may have reached the first vault.
    torn += (await listBackupIds(stores[0] ?? fail(), 'uploads')).length - before.length;
    writeAt(at('content/large'), random.below(5 * MIB), random.bytes(100));
    const { manifest, lost } = await takeDirectoryBackup(context, source);
    wanted.set(manifest.id, contentOf(at('content')));
    expect(lost).toEqual([]);
    expect(manifest.notes).toEqual([]);
    // Built on the last one that counts, which after a torn commit is the torn one.
    expect(manifest.storedBytes).toBeLessThan(MIB);
    expect(manifest.previous?.id).toBe((await listBackupIds(stores[0] ?? fail(), 'uploads')).at(-2));
  }
  expect(torn).toBeGreaterThan(0);
  for (const store of stores) {
    for (const [id, content] of wanted) {
      const target = at(`restored-${store.name}-${id}`);
      const manifest = await readManifest(store, 'uploads', id);
      await restoreBackup({ store, manifest, keyRing: new KeyRing([identity]), pool, target });
      expect(contentOf(target)).toEqual(content);
      rmSync(target, { recursive: true });
    }
  }
  // What was left behind is removed when it is old; what counts is one file.
  expect(readdirSync(at('scratch/previous/uploads')).filter((name) => !name.endsWith('.tmp'))).toHaveLength(1);
  await pool.close();
});

function fail(): never {
  throw new Error('no vault');
}
