import { expect, it } from 'vitest';
import { listBackupIds, readManifest } from '../../../src/backup/catalog.ts';
import { applyRetention } from '../../../src/backup/retention/collect.ts';
import { silentLog } from '../../../src/base/log.ts';
import { hour } from '../care/vault-fixture.ts';
import { change, contentOf, incrementalWorld, KIB, Random, type World } from './world.ts';

let world: World;

it.each([1, 2])(
  'seed %i: every backup of a long chain comes back from each vault alone, old ones gone',
  async (seed) => {
    world = await incrementalWorld(512 * KIB);
    const { root, east, west, time } = world;
    const random = new Random(seed);
    const wanted = new Map<string, Map<string, string>>();
    let reused = 0;
    for (let i = 0; i < 9; i++) {
      for (let n = i === 0 ? 8 : 1; n > 0; n--) change(root, random);
      const { manifest, lost } = await world.take();
      expect(lost).toEqual([]);
      expect(manifest.notes).toEqual([]);
      expect(manifest.previous?.id).toBe([...wanted.keys()].at(-1));
      wanted.set(manifest.id, contentOf(root));
      reused += manifest.reusedBytes ?? 0;
      // Nothing is listed that no extent uses, nothing twice.
      expect(new Set(manifest.parts.map(({ key }) => key)).size).toBe(manifest.parts.length);
      expect(await world.restored(manifest, random.below(2) === 0 ? east : west)).toEqual(wanted.get(manifest.id));
      if (i % 4 !== 3) continue;
      // Only the newest three stay, and of the parts of the others only what those need.
      // Longer than a backup that began on one of them could still run.
      time.nowMs += 72 * hour;
      const policies = new Map([['uploads', { kind: 'data' as const, retentionMs: 1000, keepAtLeast: 3 }]]);
      await applyRetention({ stores: [east, west], policies, clock: time, log: silentLog, graceMs: 1000 });
    }
    expect(reused).toBeGreaterThan(0);
    for (const store of [east, west]) {
      const ids = await listBackupIds(store, 'uploads');
      expect(ids.length).toBeLessThan(8);
      for (const id of ids) {
        expect(await world.restored(await readManifest(store, 'uploads', id), store)).toEqual(wanted.get(id));
      }
    }
  },
);
