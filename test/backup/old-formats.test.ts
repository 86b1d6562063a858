import { cpSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, test } from 'vitest';
import { examineVault } from '../../src/backup/care/check-vault.ts';
import { everything } from '../../src/backup/care/sample.ts';
import { newestBackup } from '../../src/backup/catalog.ts';
import { restoreBackup } from '../../src/backup/restore.ts';
import { fetchWalFile } from '../../src/backup/wal/reader.ts';
import { systemClock } from '../../src/base/clock.ts';
import { checkVault } from '../../src/vault/enrol.ts';
import { FileStore } from '../../src/vault/file-store.ts';
import { KeyRing, parseIdentities } from '../../src/vault/keys.ts';
import { SealPool } from '../../src/vault/seal-pool.ts';
import { tempDir } from '../harness/temp.ts';

const fixture = fileURLToPath(new URL('../fixtures/vault-1', import.meta.url));

describe('a vault of format 1, written by dr 0.1.0', () => {
  const pool = new SealPool(1);
  afterAll(async () => await pool.close());

  async function open() {
    const root = path.join(await tempDir('old'), 'vault');
    cpSync(path.join(fixture, 'vault'), root, { recursive: true });
    const text = readFileSync(path.join(fixture, 'identity.txt'), 'utf8');
    const keyRing = new KeyRing(parseIdentities(text, 'identity.txt'));
    return { store: new FileStore({ name: 'old', region: 'somewhere', root }), keyRing };
  }

  test('is recognised', async () => {
    const { store } = await open();
    expect(await checkVault(store)).toMatchObject({ format: 1 });
  });

  test('is found to be whole', async () => {
    const { store } = await open();
    const data = everything;
    const found = await examineVault({ store, others: [], policies: new Map(), data, clock: systemClock });
    expect(found).toMatchObject({ problems: [], foreign: [], notes: [], orphans: { objects: 0 } });
    expect(found.readBytes).toBeGreaterThan(1000);
  });

  test.each(['uploads', 'plain'])('restores its backup of %s', async (resource) => {
    const { store, keyRing } = await open();
    const manifest = await newestBackup(store, resource);
    if (!manifest) throw new Error('no backup');
    const target = path.join(await tempDir('restored'), 'content');
    await restoreBackup({ store, manifest, keyRing, pool, target });
    expect(readFileSync(path.join(target, 'hello.txt'), 'utf8')).toBe('hello, later versions\n');
    const binary = Buffer.from(Array.from({ length: 5000 }, (_, i) => (i * 7) % 256));
    expect(readFileSync(path.join(target, 'folder', 'binary')).equals(binary)).toBe(true);
  });

  test('gives back its WAL', async () => {
    const { store, keyRing } = await open();
    const segment = await fetchWalFile(store, keyRing, '7711238064300980214', '000000010000000000000001');
    expect(segment?.subarray(0, 3000).equals(Buffer.alloc(3000, 'WAL of old'))).toBe(true);
    expect(segment?.length).toBe(16 * 1024 * 1024);
  });
});
