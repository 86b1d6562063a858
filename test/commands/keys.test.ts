import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { generateIdentity, identityToRecipient } from 'age-encryption';
import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { exitCodes } from '../../src/commands/exit-codes.ts';
import { FileStore } from '../../src/vault/file-store.ts';
import { createDataKey } from '../../src/vault/keys.ts';
import { nodeBinary, startProcess } from '../harness/process.ts';
import { tempDir } from '../harness/temp.ts';

const main = join(import.meta.dirname, '../../src/main.ts');
const [old, fresh] = [await generateIdentity(), await generateIdentity()];
const [oldRecipient, freshRecipient] = [await identityToRecipient(old), await identityToRecipient(fresh)];
let root: string;
let identities: string;

function configure(...recipients: string[]): void {
  writeFileSync(
    join(root, 'dr.yaml'),
    `version: 1
vaults:
  east: { region: eu-west-1, url: "file://${root}/east" }
  west: { region: eu-central-1, url: "file://${root}/west" }
sites: { east: { region: eu-west-1, vault: east } }
active: east
encryption: { recipients: ${JSON.stringify(recipients)} }
data: { uploads: { path: ${root}/uploads } }
`,
  );
}

function start(...args: string[]) {
  const env = { PATH: process.env['PATH'], DR_CONFIG: join(root, 'dr.yaml'), DR_IDENTITY_FILE: identities };
  return startProcess(nodeBinary, [main, ...args], { env });
}

const dr = (...args: string[]) => start(...args).ended;

/** Every key object of a vault, by name. */
function keys(vault: string): Map<string, string> {
  const folder = join(root, vault, 'keys');
  const files = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  return new Map(
    files
      .map((file) => join(file.parentPath, file.name))
      .sort()
      .map((path) => [path.slice(folder.length + 1), readFileSync(path, 'utf8')]),
  );
}

beforeAll(async () => {
  identities = join(await tempDir('identity'), 'identities.txt');
  writeFileSync(identities, `${old}\n# the new one\n${fresh}\n`, { mode: 0o600 });
});
beforeEach(async () => {
  root = await tempDir('keys');
  mkdirSync(join(root, 'uploads'));
  writeFileSync(join(root, 'uploads', 'a'), 'content');
  configure(oldRecipient);
});

describe('dr keys', () => {
  test('list, rotate, list, remove the old ones; the exit code says what is wrong', async () => {
    expect((await dr('backup')).code).toBe(0);
    expect((await dr('keys', 'list')).stdout).toMatch(/^Data keys: \d+ \(east \d+, west \d+\)\.\n/);
    configure(freshRecipient);
    const lost = await dr('keys', 'list');
    expect(lost.code).toBe(exitCodes['wrong-key'].code);
    expect(lost.stdout).toMatch(/^NOBODY of the configuration opens /m);
    expect(lost.stdout).toMatch(new RegExp(`^${oldRecipient} +no +2 +0$`, 'm'));
    const rotated = await dr('keys', 'rotate', '--json');
    expect(rotated.code).toBe(0);
    expect(JSON.parse(rotated.stdout)).toMatchObject({
      ok: true,
      result: { rewrapped: 2, proven: 2, already: 0, failed: [], away: [], kept: [] },
    });
    expect((await dr('keys', 'list')).stdout).toMatch(new RegExp(`^${oldRecipient} +no +0 +2$`, 'm'));
    const removed = await dr('keys', 'rotate', '--remove-old');
    expect(removed).toMatchObject({
      code: 0,
      stdout: expect.stringContaining('Vault west: 0 written, 2 old ones removed.'),
    });
    const after = await dr('keys', 'list');
    expect(after.stdout).toContain('All of them are wrapped for exactly these.');
    expect(after.stdout).not.toContain(oldRecipient);
    for (const ended of [lost, rotated, removed, after]) {
      expect(ended.stdout + ended.stderr).not.toMatch(/AGE-SECRET-KEY-[^*]/);
    }
  });

  test('killed with -9 in the middle and repeated, both vaults end equal', async () => {
    expect((await dr('backup')).code).toBe(0);
    const stores = ['east', 'west'].map((name) => new FileStore({ name, region: name, root: join(root, name) }));
    for (let i = 0; i < 150; i++) {
      const created = await createDataKey({ recipients: [oldRecipient] }, Date.now(), 'wal/1');
      for (const store of stores) await store.create(created?.objectKey ?? '', created?.object ?? Buffer.alloc(0));
    }
    configure(freshRecipient);
    const newWraps = (vault: string) => [...keys(vault).keys()].filter((key) => key.endsWith('/000002.json')).length;
    const killed = start('keys', 'rotate');
    let ended = false;
    void killed.ended.then(() => {
      ended = true;
    });
    while (newWraps('west') < 20 && !ended) await new Promise((resolve) => setImmediate(resolve));
    await killed.kill9();
    const half = keys('east');
    expect(newWraps('east')).toBeGreaterThan(10);
    expect(newWraps('east')).toBeLessThan(150);
    const again = await dr('keys', 'rotate', '--json');
    expect(again.code).toBe(0);
    expect(JSON.parse(again.stdout).result).toMatchObject({ failed: [], away: [] });
    const [east, west] = [keys('east'), keys('west')];
    expect(east.size).toBe(304);
    expect(west).toEqual(east);
    for (const [key, content] of half) expect(east.get(key), key).toBe(content);
  });

  test('says what it needs: an identity, recipients, an action that it knows', async () => {
    expect((await dr('backup')).code).toBe(0);
    const env = { PATH: process.env['PATH'], DR_CONFIG: join(root, 'dr.yaml') };
    const without = await startProcess(nodeBinary, [main, 'keys', 'rotate'], { env }).ended;
    expect(without).toMatchObject({ code: exitCodes['wrong-key'].code, stderr: expect.stringContaining('--identity') });
    expect((await dr('keys', 'turn')).code).toBe(exitCodes.usage.code);
    expect((await dr('keys', 'list', '--remove-old')).code).toBe(exitCodes.usage.code);
  });
});
