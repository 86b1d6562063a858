import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, test } from 'vitest';
import { exitCodes } from '../../src/commands/exit-codes.ts';
import { CommandWorld } from '../harness/command-world.ts';

const day = 86_400_000;
let world: CommandWorld;
let root: string;

beforeEach(async () => {
  world = await CommandWorld.make();
  root = world.root;
});

const dr = async (...args: string[]) => await world.dr(...args);
const ago = async (ms: number, work: () => Promise<void>) => await world.ago(ms, work);

describe('dr backups', () => {
  test('says that there is nothing, then lists what there is, where it is and what a vault lacks', async () => {
    mkdirSync(join(root, 'vault-east'));
    mkdirSync(join(root, 'vault-west'));
    const empty = await dr('backups');
    expect(empty).toMatchObject({ code: 0, stdout: expect.stringMatching(/^No vault has a backup yet/) });
    expect((await dr('backup')).code).toBe(0);
    const text = await dr('backups');
    expect(text.code).toBe(0);
    expect(text.stdout).toMatch(/^RESOURCE +BACKUP +RECOVERY POINT +SIZE +STORED +REUSED +VAULTS +VERIFIED +NOTES\n/);
    expect(text.stdout).toMatch(/uploads +\d{8}T\d{9}Z-[0-9a-f]{6} .* 97\.7 KiB .* east, west +-/);
    expect(text.stdout).toMatch(/\n2 backups: /);
    const json = await dr('backups', 'uploads', '--json');
    expect(json.json()).toMatchObject({
      ok: true,
      result: { backups: [{ resource: 'uploads', logicalBytes: 100_000, vaults: ['east', 'west'], missing: [] }] },
    });
    rmSync(join(root, 'vault-west', 'manifests', 'uploads'), { recursive: true });
    expect((await dr('backups', 'uploads')).stdout).toMatch(/east \(not west\)/);
    expect((await dr('backups', 'uploads', '--vault', 'west')).stdout).toMatch(/^No vault has a backup of uploads/);
  });

  test('an unknown resource or vault is an error with a suggestion; a damaged manifest is named', async () => {
    await dr('backup');
    const typo = await dr('backups', 'uplods');
    expect(typo.code).toBe(exitCodes['not-found'].code);
    expect(typo.stderr).toMatch(/did you mean "?uploads"?\?/);
    expect((await dr('backups', '--vault', 'north')).code).toBe(exitCodes['not-found'].code);
    for (const vault of ['vault-east', 'vault-west']) {
      const folder = join(root, vault, 'manifests', 'uploads');
      for (const name of readdirSync(folder)) writeFileSync(join(folder, name), '{}');
    }
    const damaged = await dr('backups');
    expect(damaged.code).toBe(exitCodes.corrupt.code);
    expect(damaged.stdout).toMatch(/DAMAGED: backup .* of uploads in vault west/);
  });
});

describe('dr status', () => {
  test('is broken without backups, safe with them, broken again when they are too old', async () => {
    mkdirSync(join(root, 'vault-east'));
    mkdirSync(join(root, 'vault-west'));
    const before = await dr('status');
    expect(before.code).toBe(exitCodes['objective-broken'].code);
    expect(before.stdout).toMatch(/^NOT SAFE: nothing could be recovered\./);
    await dr('backup');
    const after = await dr('status');
    expect(after.code).toBe(0);
    expect(after.stdout).toMatch(/^Safe: if eu-west-1 died now, .* of uploads would be lost\./);
    expect(after.stdout).toMatch(/\nActive site: east in eu-west-1/);
    expect(after.stdout).not.toMatch(/BROKEN|To mend/);
    world.shiftMs = 2 * day;
    const old = await dr('status', '--json');
    expect(old.code).toBe(exitCodes['objective-broken'].code);
    expect(old.json()).toMatchObject({
      ok: false,
      result: {
        ok: false,
        resources: [
          { name: 'uploads', ok: false, crossRegion: true },
          // Nothing is promised for what is backed up on change, but that it is verified.
          { name: 'settings', ok: false },
        ],
        alerts: [
          { level: 'broken', resource: 'uploads', message: expect.stringMatching(/^2 d of uploads would be lost now/) },
          { level: 'broken', resource: 'uploads', message: expect.stringMatching(/never been verified/) },
          { level: 'broken', resource: 'settings', message: expect.stringMatching(/never been verified/) },
          { level: 'warning', vault: 'east', message: expect.stringMatching(/^check of vault east: never;/) },
          { level: 'warning', vault: 'west', message: expect.stringMatching(/^check of vault west: never;/) },
          { level: 'warning', message: expect.stringMatching(/^retention has not been done in all vaults since/) },
        ],
      },
    });
  });

  test('shows a vault that is gone, and fails only when none answers', async () => {
    await dr('backup');
    rmSync(join(root, 'vault-east'), { recursive: true });
    const one = await dr('status');
    expect(one.code).toBe(0);
    expect(one.stdout).toMatch(/east +eu-west-1 \(active site\) .*NOT READABLE/);
    rmSync(join(root, 'vault-west'), { recursive: true });
    expect((await dr('status')).code).toBe(exitCodes.unreachable.code);
  });
});

describe('dr retention and dr hold', () => {
  async function threeBackups(): Promise<void> {
    for (let i = 0; i < 3; i++) {
      writeFileSync(join(root, 'uploads', 'a'), String(i).repeat(50_000));
      await dr('backup', 'uploads');
    }
  }
  const manifests = (vault: string) => readdirSync(join(root, vault, 'manifests', 'uploads'));

  test('shows what would go and changes nothing; --apply deletes it; a hold keeps it', async () => {
    await threeBackups();
    expect((await dr('retention')).stdout).toMatch(
      /Vault east: nothing to delete\.\n {2}Kept: 3 backups within retention\./,
    );
    expect(manifests('vault-east')).toHaveLength(3);
    for (const vault of ['vault-east', 'vault-west']) rmSync(join(root, vault), { recursive: true });

    await ago(100 * day, threeBackups);
    const plan = await dr('retention');
    expect(plan.code).toBe(0);
    expect(plan.stdout).toMatch(/Vault west: 6 objects would go/);
    expect(plan.stdout).toMatch(/"dr retention --apply" deletes it\.$/m);
    expect(manifests('vault-east')).toHaveLength(3);

    const set = await dr('hold', 'set', '--reason', 'INC-42: orders corrupted');
    expect(set.code).toBe(0);
    const held = await dr('retention', '--apply');
    expect(held.code).toBe(exitCodes.refused.code);
    expect(held.stdout).toMatch(/^Nothing is deleted in any vault: hold .* INC-42: orders corrupted/);
    expect((await dr('hold', 'list')).stdout).toMatch(/east and west +INC-42/);
    expect((await dr('hold', 'clear')).stdout).toMatch(/^Cleared: /);
    expect((await dr('hold', 'list')).stdout).toBe('No hold stands.\n');
    expect((await dr('hold', 'clear')).code).toBe(exitCodes['not-found'].code);

    const applied = await dr('retention', '--apply', '--json');
    expect(applied).toMatchObject({ code: 0 });
    expect(applied.json()).toMatchObject({ ok: true, result: { applied: true, vaults: [{ vault: 'east' }, {}] } });
    for (const vault of ['vault-east', 'vault-west']) {
      expect(manifests(vault)).toHaveLength(1);
      expect(readdirSync(join(root, vault, 'indexes', 'uploads'))).toHaveLength(1);
    }
    expect((await dr('restore', 'uploads', '--to', join(root, 'restored'))).code).toBe(0);
    expect(readFileSync(join(root, 'restored', 'a'), 'utf8')).toBe('2'.repeat(50_000));
  });

  test('a clock far ahead of the vaults deletes nothing', async () => {
    await threeBackups();
    world.shiftMs = 100 * day;
    const applied = await dr('retention', '--apply', '--json');
    expect(applied.code).toBe(exitCodes.refused.code);
    expect(applied.stdout).toMatch(/clock of this machine differs/);
    expect(manifests('vault-east')).toHaveLength(3);
  });

  test('while a vault is away nothing is deleted from the other', async () => {
    await threeBackups();
    rmSync(join(root, 'vault-west'), { recursive: true });
    const applied = await dr('retention', '--apply');
    expect(applied.code).not.toBe(0);
    expect(applied.stdout).toMatch(/^Nothing is deleted in any vault: vault west/);
    expect(manifests('vault-east')).toHaveLength(3);
  });

  test('arguments of hold are checked', async () => {
    for (const args of [['set'], ['set', '--reason', ' '], ['list', 'x'], ['release']]) {
      expect((await dr('hold', ...args)).code).toBe(exitCodes.usage.code);
    }
  });
});
