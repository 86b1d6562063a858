import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, test } from 'vitest';
import { exitCodes } from '../../src/commands/exit-codes.ts';
import { CommandWorld } from '../harness/command-world.ts';

const hour = 3_600_000;
let world: CommandWorld;
let root: string;

/** Two vaults in directories with a backup of each resource; afterwards it is an hour later, so that all of it is settled. */
beforeEach(async () => {
  world = await CommandWorld.make();
  root = world.root;
  expect((await dr('backup')).code).toBe(0);
  world.shiftMs = hour;
});

const dr = async (...args: string[]) => await world.dr(...args);

function filesOf(vault: string, folder: string): string[] {
  return readdirSync(join(root, vault, folder), { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
}

describe('dr vault list', () => {
  test('shows what each vault holds and lacks, and whether it is cross-region', async () => {
    const whole = await dr('vault', 'list');
    expect(whole.code).toBe(0);
    expect(whole.stdout).toMatch(/^Vault east in eu-west-1, file:\/\//);
    expect(whole.stdout).toMatch(/\n {2}RESOURCE +BACKUPS +LACKS +BYTES +NEWEST\n {2}settings +1 +- /);
    expect(whole.stdout).toMatch(/every resource lies in more than one region/);
    for (const file of filesOf('vault-west', 'manifests/uploads')) rmSync(file);
    const lacking = await dr('vault', 'list');
    expect(lacking.stdout).toMatch(/Vault west[\s\S]*uploads +0 +1 /);
    expect(lacking.stdout).toMatch(
      /NOT CROSS-REGION: the newest backup of uploads lies in one region only \(eu-west-1\), since .* \(1 h ago\); no backup of it lies in two regions\.$/m,
    );
    expect(lacking.stdout).toMatch(/Never checked by a daemon/);
    const json = await dr('vault', 'list', '--json');
    expect(json.json()).toMatchObject({ result: { resources: [{ crossRegion: true }, { crossRegion: false }] } });
    rmSync(join(root, 'vault-west'), { recursive: true });
    expect((await dr('vault', 'list')).stdout).toMatch(/Vault west .*\n {2}NOT READABLE: /);
  });
});

test('a restore takes the newest backup that any vault has, not the newest of the first one', async () => {
  writeFileSync(join(root, 'uploads', 'a'), 'newer');
  expect((await dr('backup', 'uploads')).code).toBe(0);
  // What a listing that is not whole looks like: the own vault shows the older one only.
  rmSync(filesOf('vault-east', 'manifests/uploads').sort().at(-1) ?? '');
  const restored = await dr('restore', 'uploads', '--to', join(root, 'restored'));
  expect(restored.stdout).toMatch(/from vault west, every byte checked/);
  expect(restored.stderr).toMatch(/this vault lacks the newest backup/);
  expect(readFileSync(join(root, 'restored', 'a'), 'utf8')).toBe('newer');
  const own = await dr('restore', 'uploads', '--vault', 'east', '--to', join(root, 'older'));
  expect(own.stdout).toMatch(/from vault east/);
});

describe('dr vault check and repair', () => {
  test('whole vaults are told to be whole', async () => {
    const checked = await dr('vault', 'check', '--read-data');
    expect(checked.stdout).toMatch(/^Vault east: nothing is missing or damaged \(.* of content read and .* opened\)\./);
    expect(checked).toMatchObject({ code: 0, stdout: expect.stringMatching(/\nVault west: nothing/) });
    expect((await dr('vault', 'repair')).stdout).toMatch(/Vault west: nothing to mend\./);
  });

  test('damage is found, named with what it touches, mended; then the vault restores alone', async () => {
    const [part = ''] = filesOf('vault-west', 'parts/uploads');
    const good = readFileSync(part);
    const bad = Buffer.from(good);
    bad[30] = (bad[30] ?? 0) ^ 1;
    rmSync(part);
    writeFileSync(part, bad);
    for (const file of filesOf('vault-west', 'indexes/settings')) rmSync(file);
    mkdirSync(join(root, 'vault-west', 'photos'));
    writeFileSync(join(root, 'vault-west', 'photos', 'cat.jpg'), 'meow');

    const shallow = await dr('vault', 'check');
    expect(shallow.code).toBe(exitCodes.corrupt.code);
    expect(shallow.stdout).toMatch(/Vault east: nothing is missing or damaged/);
    expect(shallow.stdout).toMatch(/ {2}MISSING indexes\/settings\/.*\n {4}touches backup settings /);
    expect(shallow.stdout).toMatch(/FOREIGN photos\/: not of dr/);
    expect(shallow.stdout).not.toMatch(/DAMAGED/);
    expect(shallow.stdout).toMatch(/Content was not read: --read-data/);
    const deep = await dr('vault', 'check', 'west', '--read-data', '--json');
    expect(deep.code).toBe(exitCodes.corrupt.code);
    expect(deep.json()).toMatchObject({
      result: { vaults: [{ vault: 'west', problems: [{ state: 'damaged' }, { state: 'missing' }] }] },
    });

    const repaired = await dr('vault', 'repair', 'west');
    expect(repaired.stdout).toMatch(/^Vault west: 2 objects mended\.\n {2}(copied|replaced) .* from east\n/);
    expect(repaired.code).toBe(0);
    expect(readFileSync(part).equals(good)).toBe(true);
    expect(existsSync(join(root, 'vault-west', 'photos', 'cat.jpg'))).toBe(true);
    expect((await dr('vault', 'check', '--read-data')).code).toBe(0);
    const restored = await dr('restore', 'settings', '--vault', 'west', '--to', join(root, 'restored'));
    expect(restored.code).toBe(0);
    const listed = await dr('vault', 'list');
    expect(listed.stdout).toMatch(
      /Checked now at site east, all of its content read now: nothing missing or damaged\.\n {2}Repaired now at site east: 2 objects mended\.\n/,
    );
    expect((await dr('status')).stdout).not.toMatch(/missing or damaged/);
  });

  test('what is damaged everywhere is named and stays; the rest is mended', async () => {
    for (const vault of ['vault-east', 'vault-west']) {
      for (const file of filesOf(vault, 'parts/uploads')) writeFileSync(file, 'nothing');
    }
    for (const file of filesOf('vault-west', 'manifests/settings')) rmSync(file);
    const repaired = await dr('vault', 'repair', 'west');
    expect(repaired.code).toBe(exitCodes.corrupt.code);
    expect(repaired.stdout).toMatch(/Vault west: one backup copied/);
    expect(repaired.stdout).toMatch(/STILL WRONG: one problem\n {2}DAMAGED parts\/uploads\//);
    expect(repaired.stdout).toMatch(/no other vault has a good copy of parts\/uploads/);
  });

  test('without its marker a vault is used by nobody, and mended; an emptied or absent one is left alone', async () => {
    rmSync(join(root, 'vault-west', 'dr-vault.json'));
    expect((await dr('backups', '--vault', 'west')).code).toBe(exitCodes['not-found'].code);
    expect((await dr('vault', 'check', 'west')).stdout).toMatch(/MISSING dr-vault\.json/);
    expect((await dr('vault', 'repair', 'west')).code).toBe(0);
    expect((await dr('backups', '--vault', 'west')).code).toBe(0);

    rmSync(join(root, 'vault-west'), { recursive: true });
    const gone = await dr('vault', 'repair');
    expect(gone.code).toBe(exitCodes.unreachable.code);
    expect(gone.stdout).toMatch(/Vault west: STOPPED\./);
    mkdirSync(join(root, 'vault-west'));
    const empty = await dr('vault', 'repair', 'west');
    expect(empty.code).toBe(exitCodes.unreachable.code);
    expect(empty.stderr).toMatch(/Mount it or bring it back/);
    expect(readdirSync(join(root, 'vault-west')).filter((name) => !name.startsWith('.'))).toEqual([]);
  });

  test('arguments are checked', async () => {
    const wrong = [
      ['mend'],
      ['list', 'west'],
      ['enrol'],
      ['check', '--sample', '5%'],
      ['check', '--read-data', '--sample', '5'],
      ['check', '--read-data', '--sample', '0%'],
      ['check', '--read-data', '--seed', 'x'],
      ['repair', '--read-data'],
      ['check', 'west', '--vault', 'east'],
    ];
    for (const args of wrong) expect((await dr('vault', ...args)).code, args.join(' ')).toBe(exitCodes.usage.code);
    expect((await dr('vault', 'check', 'north')).code).toBe(exitCodes['not-found'].code);
    expect((await dr('vault', 'check', '--vault', 'west')).stdout).toMatch(/^Vault west: nothing/);
    const sampled = await dr('vault', 'check', '--read-data', '--sample', '50%', '--seed', 'x');
    expect(sampled.stdout).toMatch(/A share of the content was read; --seed x reads the same one again/);
  });
});
