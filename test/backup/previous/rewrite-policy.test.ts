import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { condemnedParts, type PartUsage, wasteOf } from '../../../src/backup/previous/rewrite-policy.ts';
import { Random } from './world.ts';

const MIB = 1024 * 1024;
const PART = 16 * MIB;

const part = fc
  .record({ size: fc.integer({ min: 1, max: PART }), ratio: fc.integer({ min: 1, max: 5 }), live: fc.nat(1000) })
  .map(
    ({ size, ratio, live }): PartUsage => ({ size, raw: size * ratio, live: Math.ceil((size * ratio * live) / 1000) }),
  );
const parts = fc.array(part, { maxLength: 200 });
const logicalOf = (list: readonly PartUsage[]) => list.reduce((sum, { live }) => sum + live, 0);

describe('which parts are used no longer', () => {
  it('only those with little left, or too many small ones; never more than a backup may store for it', () => {
    fc.assert(
      fc.property(parts, (list) => {
        const condemned = condemnedParts(list, logicalOf(list), PART);
        const small = list.filter(({ size }) => size < PART / 4).length;
        let bytes = 0;
        for (const position of condemned) {
          const each = list[position];
          if (!each) throw new Error('no such part');
          bytes += each.live;
          expect(each.live / each.raw < 0.3 || (each.size < PART / 4 && small > 64)).toBe(true);
        }
        expect(bytes).toBeLessThanOrEqual(Math.max(logicalOf(list) / 10, PART));
      }),
    );
  });

  it('the worst first: of those that would fit, none is spared for a better one', () => {
    fc.assert(
      fc.property(parts, (list) => {
        const condemned = condemnedParts(list, logicalOf(list), PART);
        const share = ({ raw, live }: PartUsage) => live / raw;
        for (const [position, each] of list.entries()) {
          if (condemned.has(position) || share(each) >= 0.3) continue;
          for (const other of condemned) {
            const better = list[other];
            // Smaller ones may fit where this one does not.
            if (better && share(better) < 0.3 && better.live >= each.live)
              expect(share(better)).toBeLessThanOrEqual(share(each));
          }
        }
      }),
    );
  });

  it('a full backup, and one whose parts are well used, keep all', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: PART / 4, max: PART }), { maxLength: 50 }), (sizes) => {
        const list = sizes.map((size) => ({ size, raw: size * 3, live: size * 2 }));
        expect(condemnedParts(list, logicalOf(list), PART).size).toBe(0);
      }),
    );
    expect(wasteOf([{ raw: 10, live: 10 }])).toBe(0);
    expect(wasteOf([])).toBe(0);
  });

  it('a year of changes leaves a bounded number of parts and of dead bytes', () => {
    // A resource of 1000 pieces; every backup changes 1 % of them, each time others.
    const piece = 1024 * 1024;
    const random = new Random(5);
    const owner = new Array<number>(1000).fill(0);
    const raw = new Map([[0, 1000 * piece]]);
    let [most, waste, moved] = [0, 0, 0];
    for (let backup = 1; backup <= 1460; backup++) {
      const usage = new Map<number, number>();
      for (const each of owner) usage.set(each, (usage.get(each) ?? 0) + piece);
      // A backup's parts stand for one here; what is small is judged by its stored size.
      const names = [...usage.keys()];
      const list = names.map((name) => {
        const size = (raw.get(name) ?? 0) / 4;
        return { size, raw: raw.get(name) ?? 0, live: usage.get(name) ?? 0 };
      });
      most = Math.max(most, list.length);
      waste = Math.max(waste, backup > 200 ? wasteOf(list) : 0);
      const condemned = new Set([...condemnedParts(list, 1000 * piece, PART)].map((position) => names[position]));
      let own = 0;
      for (const [i, each] of owner.entries()) {
        const changed = random.below(100) === 0;
        if (!changed && !condemned.has(each)) continue;
        if (!changed) moved++;
        owner[i] = backup;
        own++;
      }
      raw.set(backup, own * piece);
    }
    expect(most).toBeLessThan(150);
    expect(waste).toBeLessThan(0.65);
    // What was stored again for tidiness is of the order of what has changed.
    expect(moved / (1460 * 10)).toBeLessThan(0.6);
  });
});
