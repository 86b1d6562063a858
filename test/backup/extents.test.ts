import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { readExtents, writeExtents } from '../../src/backup/extent-text.ts';
import { addLiveBytes, extentsProblem, mergeAdjacent, overlayExtents, sliceExtents } from '../../src/backup/extents.ts';
import { decodeEntry, type Extent, encodeEntry, type IndexEntry, treeChecksum } from '../../src/backup/index-format.ts';

/** Runs with known bytes, and files cut from them: what an extent means can be looked up. */
const RUN_BYTES = 40;
const runs = Array.from({ length: 6 }, (_, n) => ({
  part: n % 3,
  frameOffset: n < 3 ? 0 : 500,
  frameLength: 100,
  counter: n,
  rawOffset: n * 1000,
  digest: createHash('sha256').update(`run ${n}`).digest(),
  runLength: RUN_BYTES,
}));

/** Each byte of a file as `run:offset`, holes as `-`. */
function content(extents: readonly Extent[], size: number): string[] {
  const bytes = new Array<string>(size).fill('-');
  for (const { position, length, skip, counter } of extents) {
    for (let i = 0; i < length; i++) bytes[position + i] = `${counter}:${skip + i}`;
  }
  return bytes;
}

const file = fc
  .array(
    fc.record({
      gap: fc.nat(10),
      run: fc.nat(5),
      skip: fc.nat(RUN_BYTES - 1),
      length: fc.integer({ min: 1, max: RUN_BYTES }),
    }),
    { maxLength: 12 },
  )
  .map((pieces) => {
    let position = 0;
    return pieces.flatMap(({ gap, run, skip, length }): Extent[] => {
      const found = runs[run];
      if (!found) return [];
      position += gap;
      const extent = { ...found, position, skip, length: Math.min(length, RUN_BYTES - skip) };
      position += extent.length;
      return [extent];
    });
  });
const endOf = (extents: readonly Extent[]) => extents.reduce((end, x) => Math.max(end, x.position + x.length), 0);

describe('extents', () => {
  it('a slice has the bytes of its range and no others', () => {
    fc.assert(
      fc.property(file, fc.nat(200), fc.nat(200), (extents, from, length) => {
        const size = Math.max(endOf(extents), from + length);
        const slice = sliceExtents(extents, from, from + length);
        const wanted = content(extents, size).map((byte, at) => (at >= from && at < from + length ? byte : '-'));
        expect(content(slice, size)).toEqual(wanted);
        expect(extentsProblem(slice, size)).toBeUndefined();
      }),
    );
  });

  it('merging changes no byte, and undoes cutting', () => {
    fc.assert(
      fc.property(file, fc.array(fc.nat(300)), (extents, cuts) => {
        const size = endOf(extents);
        const places = [...new Set([0, ...cuts, size])].sort((a, b) => a - b);
        const cut = places.flatMap((from, i) => sliceExtents(extents, from, places[i + 1] ?? size));
        const merged = mergeAdjacent(cut);
        expect(content(merged, size)).toEqual(content(extents, size));
        expect(merged).toEqual(mergeAdjacent(extents));
      }),
    );
  });

  it('changes laid over a file hide what lies below, and only that', () => {
    fc.assert(
      fc.property(file, file, fc.nat(400), (below, changes, extra) => {
        const size = endOf(changes) + extra;
        const named = new Set<number>();
        const laid = overlayExtents(below, changes, size, (part) => {
          named.add(part);
          return part;
        });
        const bytes = content(sliceExtents(below, 0, size), size);
        const above = content(changes, size);
        expect(content(laid, size)).toEqual(bytes.map((byte, i) => (above[i] === '-' ? byte : above[i])));
        expect(extentsProblem(laid, size)).toBeUndefined();
        for (const part of named) expect(laid.some((extent) => extent.part === part)).toBe(true);
      }),
    );
  });

  it('live bytes are those that are named', () => {
    fc.assert(
      fc.property(file, (extents) => {
        const live = new Map<number, number>();
        addLiveBytes(live, extents);
        const sum = [...live.values()].reduce((a, b) => a + b, 0);
        expect(sum).toBe(content(extents, endOf(extents)).filter((byte) => byte !== '-').length);
      }),
    );
  });

  it('finds what may not be followed', () => {
    const [run] = runs;
    if (!run) throw new Error('no run');
    const whole = { ...run, position: 0, length: RUN_BYTES, skip: 0 };
    expect(extentsProblem([whole], RUN_BYTES)).toBeUndefined();
    expect(extentsProblem([whole], RUN_BYTES - 1)).toMatch(/beyond its file/);
    expect(extentsProblem([{ ...whole, skip: 1 }], 100)).toMatch(/beyond its run/);
    expect(extentsProblem([whole, { ...whole, position: 39 }], 100)).toMatch(/overlap/);
    expect(extentsProblem([{ ...whole, length: 0 }], 100)).toMatch(/empty/);
    expect(extentsProblem([{ ...whole, digest: Buffer.alloc(31) }], 100)).toMatch(/32 bytes/);
  });
});

describe('an entry of the index', () => {
  const entry = fc.record({ extents: file, name: fc.uint8Array({ minLength: 1, maxLength: 20 }), block: fc.boolean() });

  it('comes back as it was written', () => {
    fc.assert(
      fc.property(
        entry,
        // Names of attributes hold no zero bytes either.
        fc.array(fc.tuple(fc.uint8Array({ min: 1 }), fc.uint8Array()), { maxLength: 3 }),
        (facts, attributes) => {
          const path = Buffer.from(facts.name.map((byte) => (byte === 0 || byte === 47 || byte === 46 ? 97 : byte)));
          const written: IndexEntry = {
            path,
            type: 'file',
            mode: 0o640,
            uid: 1,
            gid: 2,
            mtimeNs: 1_700_000_000_123_456_789n,
            size: endOf(facts.extents),
            extents: facts.extents,
            checksum: treeChecksum(facts.extents, endOf(facts.extents)),
            ...(facts.block ? { blockBytes: 8192 } : {}),
            ...(attributes.length > 0
              ? {
                  attributes: attributes.map(([name, value]) => ({
                    name: Buffer.from(name),
                    value: Buffer.from(value),
                  })),
                }
              : {}),
          };
          expect(decodeEntry(encodeEntry(written), 'here')).toEqual(written);
        },
      ),
    );
  });

  it('its extents are written as JSON has them, and read from it again, however many', () => {
    const number = fc.oneof(fc.nat(20), fc.nat(), fc.nat(Number.MAX_SAFE_INTEGER));
    const digest = fc.uint8Array({ minLength: 32, maxLength: 32 }).map((bytes) => Buffer.from(bytes));
    const numbers = fc.array(number, { minLength: 9, maxLength: 9 });
    const lists = fc.array(fc.tuple(numbers, fc.oneof(digest, fc.constant(Buffer.alloc(32, 7)))), { maxLength: 300 });
    fc.assert(
      fc.property(lists, (list) => {
        const extents = list.map(([numbers, digest]): Extent => {
          const [
            position = 0,
            length = 0,
            part = 0,
            frameOffset = 0,
            frameLength = 0,
            counter = 0,
            rawOffset = 0,
            skip = 0,
            runLength = 0,
          ] = numbers;
          return { position, length, part, frameOffset, frameLength, counter, rawOffset, digest, skip, runLength };
        });
        const text = writeExtents(extents);
        expect(text.toString()).toBe(
          JSON.stringify(
            extents.map((x) => [
              ...[x.position, x.length, x.part, x.frameOffset, x.frameLength, x.counter, x.rawOffset],
              x.digest.toString('base64'),
              ...(x.skip === 0 && x.length === x.runLength ? [] : [x.skip, x.runLength]),
            ]),
          ),
        );
        // Numbers that a double holds only just are left to JSON.parse.
        const isLong = list.some(([numbers]) => numbers.some((value) => value >= 1e15));
        if (extents.length > 0) expect(readExtents(text, 0, text.length)).toEqual(isLong ? undefined : extents);
        const framed = Buffer.concat([Buffer.from('12345'), text, Buffer.from('}')]);
        if (extents.length > 0 && !isLong) expect(readExtents(framed, 5, framed.length - 1)).toEqual(extents);
      }),
      { numRuns: 50 },
    );
  });

  it('extents that are damaged are never read as others', () => {
    const extents = Array.from({ length: 80 }, (_, n): Extent => {
      const run = runs[n % 6] ?? fail();
      return { ...run, position: n * 50, length: 10, skip: n % 20 };
    });
    const head = { path: Buffer.from('a'), type: 'file' as const, mode: 0, uid: 0, gid: 0, mtimeNs: 0n, size: 5000 };
    const line = encodeEntry({ ...head, extents, checksum: treeChecksum(extents, 5000) });
    expect(line.length).toBeGreaterThan(4096);
    expect(decodeEntry(line, 'here').extents).toEqual(extents);
    expect(decodeEntry(line.subarray(0, -1), 'here').extents).toEqual(extents);
    fc.assert(
      fc.property(fc.nat(line.length - 2), fc.nat(255), (at, byte) => {
        const damaged = Buffer.from(line);
        damaged[at] = byte;
        let general: unknown;
        try {
          general = JSON.parse(damaged.toString());
        } catch {
          expect(() => decodeEntry(damaged, 'here')).toThrow(/cannot be read/);
          return;
        }
        // What is JSON all the same is read as JSON reads it, or refused.
        try {
          const read = decodeEntry(damaged, 'here');
          const again = JSON.parse(encodeEntry(read).toString()) as { x?: unknown };
          const numbers = (value: unknown) =>
            JSON.stringify(value, (_, each) => (typeof each === 'string' ? '' : each));
          const { x } = general as { x?: unknown };
          if (Array.isArray(x)) expect(numbers(again.x)).toBe(numbers(x));
        } catch (error) {
          expect(error).toMatchObject({ kind: 'corrupt' });
        }
      }),
      { numRuns: 2000 },
    );
  });

  it('a run used whole is written as format 1 had it, a piece with what it is a piece of', () => {
    const [run] = runs;
    if (!run) throw new Error('no run');
    const head = { path: Buffer.from('a'), type: 'file' as const, mode: 0, uid: 0, gid: 0, mtimeNs: 0n, size: 9 };
    const whole = { ...run, position: 0, length: RUN_BYTES, skip: 0 };
    const lengths = [whole, { ...whole, length: 5 }, { ...whole, skip: 1, length: RUN_BYTES - 1 }].map(
      (extent) =>
        (JSON.parse(encodeEntry({ ...head, extents: [extent] }).toString()) as { x: unknown[][] }).x[0]?.length,
    );
    expect(lengths).toEqual([8, 10, 10]);
    expect(treeChecksum([{ ...whole, length: 5 }], 40)).not.toEqual(
      treeChecksum([{ ...whole, length: 5, skip: 1 }], 40),
    );
  });
});

function fail(): never {
  throw new Error('no run');
}
