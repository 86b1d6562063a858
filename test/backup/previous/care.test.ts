import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { beforeEach, expect, it } from 'vitest';
import { examineVault } from '../../../src/backup/care/check-vault.ts';
import { copyMissing } from '../../../src/backup/care/repair.ts';
import { repairVault } from '../../../src/backup/care/repair-vault.ts';
import { everything } from '../../../src/backup/care/sample.ts';
import type { Manifest } from '../../../src/backup/manifest.ts';
import { silentLog } from '../../../src/base/log.ts';
import { enrolVault } from '../../../src/vault/enrol.ts';
import { damage } from '../care/vault-fixture.ts';
import { contentOf, incrementalWorld, MIB, Random, type World, writeAt } from './world.ts';

let world: World;
const chain: Manifest[] = [];
const contents: Array<Map<string, string>> = [];

/** Three backups, each built on the one before. */
beforeEach(async () => {
  world = await incrementalWorld();
  for (const store of [world.east, world.west]) await enrolVault(store);
  const random = new Random(11);
  chain.length = 0;
  contents.length = 0;
  writeFileSync(path.join(world.root, 'large'), random.bytes(9 * MIB));
  for (let n = 0; n < 3; n++) {
    chain.push((await world.take()).manifest);
    contents.push(contentOf(world.root));
    writeAt(path.join(world.root, 'large'), n * MIB, random.bytes(100));
  }
});

const check = () => ({
  store: world.west,
  others: [world.east],
  policies: new Map(),
  data: everything,
  clock: world.time,
  log: silentLog,
});

it('a damaged part touches every backup that names it; mending it mends them all', async () => {
  const part = chain[0]?.parts.at(-1)?.key ?? '';
  expect(chain.every(({ parts }) => parts.some(({ key }) => key === part))).toBe(true);
  await damage(world.west, part, 5000);
  const found = await examineVault(check());
  expect(found.problems.filter(({ key }) => key === part)).toMatchObject([
    { state: 'damaged', touches: chain.map(({ id }) => `backup uploads ${id}`) },
  ]);
  await expect(world.restored(chain[2] ?? fail(), world.west)).rejects.toMatchObject({ kind: 'corrupt' });
  await repairVault(check());
  expect((await examineVault(check())).problems).toEqual([]);
  for (const [n, manifest] of chain.entries()) expect(await world.restored(manifest, world.west)).toEqual(contents[n]);
});

it('an index or part of one backup that is gone touches those that need it, and no others', async () => {
  const own = chain[1]?.parts.find(({ key }) => key.includes(chain[1]?.id ?? '-'))?.key ?? '';
  const index = chain[2]?.index.key ?? '';
  await world.west.delete([own, index]);
  const found = await examineVault(check());
  const touches = (key: string) => found.problems.find((problem) => problem.key === key)?.touches;
  expect(touches(own)).toEqual([chain[1], chain[2]].map((manifest) => `backup uploads ${manifest?.id}`));
  expect(touches(index)).toEqual([`backup uploads ${chain[2]?.id}`]);
});

it('a vault that has nothing gets every backup with all that it names, each object once', async () => {
  const everyKey: string[] = [];
  for await (const { key } of world.west.list('')) everyKey.push(key);
  await world.west.delete(everyKey.filter((key) => /^(parts|indexes|manifests|keys)\//.test(key)));
  world.west.created.length = 0;
  const policies = new Map();
  await copyMissing({ from: [world.east], to: world.west, policies, clock: world.time, log: silentLog });
  expect(new Set(world.west.created).size).toBe(world.west.created.length);
  for (const [n, manifest] of chain.entries()) expect(await world.restored(manifest, world.west)).toEqual(contents[n]);
});

function fail(): never {
  throw new Error('no backup');
}
