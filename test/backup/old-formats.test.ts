import { spawnSync } from 'node:child_process';
import { cpSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, test } from 'vitest';
import { examineVault } from '../../src/backup/care/check-vault.ts';
import { everything } from '../../src/backup/care/sample.ts';
import { newestBackup } from '../../src/backup/catalog.ts';
import type { IndexEntry } from '../../src/backup/index-format.ts';
import { readIndex } from '../../src/backup/index-reader.ts';
import { restoreBackup } from '../../src/backup/restore.ts';
import { fetchWalFile } from '../../src/backup/wal/reader.ts';
import { systemClock } from '../../src/base/clock.ts';
import { checkVault } from '../../src/vault/enrol.ts';
import { FileStore } from '../../src/vault/file-store.ts';
import { KeyRing, parseIdentities } from '../../src/vault/keys.ts';
import { SealPool } from '../../src/vault/seal-pool.ts';
import { tempDir } from '../harness/temp.ts';

/** What `scripts/make-fixture.ts` left in the large file of format 2. */
function largeOf2(): Buffer {
  const content = Buffer.alloc(5 * 1024 * 1024, 'once upon a time ');
  for (const position of [1024 * 1024, 4 * 1024 * 1024 + 1]) content.write('and then it was changed', position);
  return content;
}

describe.each([1, 2])('a vault of format %i, written by dr 0.1.0', (format) => {
  const fixture = fileURLToPath(new URL(`../fixtures/vault-${format}`, import.meta.url));
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
    expect(await checkVault(store)).toMatchObject({ format });
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
    expect(manifest.previous === undefined).toBe(format === 1);
    if (format === 1) return;
    // Pieces of two backups.
    expect(readFileSync(path.join(target, 'large')).equals(largeOf2())).toBe(true);
    expect(manifest.parts).toHaveLength(2);
    let hello: IndexEntry | undefined;
    for await (const entry of readIndex(store, manifest, keyRing)) {
      if (entry.path.toString() === 'hello.txt') hello = entry;
    }
    expect(hello).toMatchObject({
      mtimeNs: 1_700_000_000_123_456_789n,
      attributes: [{ name: Buffer.from('user.origin'), value: Buffer.from('the beginning') }],
    });
  });

  test.each(['uploads', 'plain'])('gives back %s by the script that it carries', async (resource) => {
    const { store } = await open();
    const target = path.join(await tempDir('restored'), 'content');
    const script = fileURLToPath(new URL('../../restore-script/dr-restore.mjs', import.meta.url));
    const identity = ['--identity', path.join(fixture, 'identity.txt')];
    const vault = fileURLToPath(store.location);
    const ended = spawnSync(process.execPath, [script, vault, 'restore', resource, target, ...identity], {
      encoding: 'utf8',
    });
    expect(ended, ended.stderr).toMatchObject({ status: 0, stdout: expect.stringContaining('every byte was checked') });
    expect(ended.stderr).toMatch(format === 1 ? /^$/ : /^Note: extended attributes .* of one entry are not set yet/);
    expect(readFileSync(path.join(target, 'hello.txt'), 'utf8')).toBe('hello, later versions\n');
    if (format === 2) expect(readFileSync(path.join(target, 'large')).equals(largeOf2())).toBe(true);
  });

  test('gives back its WAL', async () => {
    const { store, keyRing } = await open();
    const segment = await fetchWalFile(store, keyRing, '7711238064300980214', '000000010000000000000001');
    expect(segment?.subarray(0, 3000).equals(Buffer.alloc(3000, 'WAL of old'))).toBe(true);
    expect(segment?.length).toBe(16 * 1024 * 1024);
  });
});
