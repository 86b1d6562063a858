import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { CommandWorld } from '../harness/command-world.ts';

interface Documents {
  readonly result: {
    readonly backups?: ReadonlyArray<{ readonly id: string; readonly unchanged: boolean }>;
    readonly verifications?: ReadonlyArray<{ readonly startedAt: string }>;
  };
}

test('a backup or a verification that was begun since then is not done again, whoever asks how late', async () => {
  const world = await CommandWorld.make();
  const slot = new Date().toISOString();
  const take = async (...more: string[]) => {
    const { code, stdout, stderr } = await world.dr('backup', 'uploads', '--json', ...more);
    expect(code, stderr).toBe(0);
    return (JSON.parse(stdout) as Documents).result.backups?.[0];
  };
  const first = await take('--if-none-since', slot);
  expect(first?.unchanged).toBe(false);
  writeFileSync(join(world.root, 'uploads', 'b'), 'changed meanwhile');
  expect(await take('--if-none-since', slot)).toMatchObject({ id: first?.id, unchanged: true });
  const later = await take('--if-none-since', new Date(Date.now() + 1).toISOString());
  expect(later?.id).not.toBe(first?.id);
  expect((await take())?.id).not.toBe(later?.id);

  const verify = async () => {
    const { code, stdout, stderr } = await world.dr('verify', 'uploads', '--json', '--if-none-since', slot);
    expect(code, stderr).toBe(0);
    return (JSON.parse(stdout) as Documents).result.verifications?.[0]?.startedAt;
  };
  const verified = await verify();
  expect(verified).toBeDefined();
  expect(await verify()).toBe(verified);
});

test('a time without a zone is no time', async () => {
  const world = await CommandWorld.make();
  const { code, stderr } = await world.dr('backup', '--if-none-since', '2026-11-23T12:00:00');
  expect(code).toBe(2);
  expect(stderr).toContain('Write it like 2026-11-23T05:00:00Z');
});
