import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ExpectedParts } from '../../../src/backup/care/expected-parts.ts';
import { splice } from '../../../src/backup/care/repair-splice.ts';
import { everything, isInSample, sampleOfSeed, sampleOfTurn, turnOfDay } from '../../../src/backup/care/sample.ts';

const share = fc.double({ min: 0.001, max: 1, noNaN: true });

describe('samples', () => {
  test('of turns in a row take everything, whatever turn is the first; a turn takes its share', () => {
    fc.assert(
      fc.property(
        share,
        fc.nat(100_000),
        fc.array(fc.string(), { minLength: 1, maxLength: 30 }),
        (share, first, keys) => {
          const turns = Math.ceil(1 / share);
          for (const key of keys) {
            const taken = Array.from({ length: turns }, (_, i) => isInSample(sampleOfTurn(share, first + i), key));
            const times = taken.filter(Boolean).length;
            expect(times).toBeGreaterThanOrEqual(1);
            expect(times).toBeLessThanOrEqual(2);
          }
        },
      ),
      { numRuns: 60 },
    );
    const keys = Array.from({ length: 20_000 }, (_, i) => `parts/x/${i}`);
    expect(keys.filter((key) => isInSample(sampleOfTurn(0.05, 7), key)).length / keys.length).toBeCloseTo(0.05, 2);
    expect(keys.every((key) => isInSample(everything, key))).toBe(true);
  });

  test('a day names its turn, another word always the same sample', () => {
    const nowMs = Date.UTC(2026, 10, 23, 5);
    expect(sampleOfSeed(0.1, '2026-11-23')).toEqual(sampleOfTurn(0.1, turnOfDay(nowMs)));
    expect(sampleOfSeed(0.1, 'x')).toEqual(sampleOfSeed(0.1, 'x'));
    expect(sampleOfSeed(0.1, 'x')).not.toEqual(sampleOfSeed(0.1, 'y'));
  });
});

test('expected parts are what a map of them would be', () => {
  const part = fc.record({
    resource: fc.constantFrom('a', 'b'),
    id: fc.constantFrom('1', '2', '3'),
    number: fc.oneof(fc.nat(40), fc.nat(2 ** 31)),
    size: fc.nat(2 ** 32),
    digest: fc.uint8Array({ minLength: 32, maxLength: 32 }),
    keyId: fc.constantFrom(undefined, 'k1', 'k2'),
  });
  fc.assert(
    fc.property(fc.array(part), fc.array(fc.nat(60)), (parts, takes) => {
      const expected = new ExpectedParts();
      const model = new Map<string, { size: number; sha256: string; keyId?: string }>();
      for (const { resource, id, number, size, digest, keyId } of parts) {
        const content = {
          size,
          sha256: Buffer.from(digest).toString('hex'),
          ...(keyId === undefined ? {} : { keyId }),
        };
        const name = `${resource}/${id}/${number}`;
        const known = model.get(name);
        const same = known === undefined || JSON.stringify(known) === JSON.stringify(content);
        expect(expected.add(resource, id, number, content)).toBe(same);
        if (!known) model.set(name, content);
      }
      const left = new Map(model);
      for (const take of takes) {
        const { resource, id, number } = parts[take] ?? { resource: 'a', id: '9', number: take };
        const name = `${resource}/${id}/${number}`;
        expect(expected.take(resource, id, number)).toEqual(model.get(name));
        left.delete(name);
      }
      const found = [...expected.left()].map(
        ({ resource, id, number, content }) => [`${resource}/${id}/${number}`, content] as const,
      );
      expect(new Map(found)).toEqual(left);
    }),
  );
});

test('two copies damaged in different places give the whole; damaged in the same place they do not', () => {
  const place = fc.record({ at: fc.nat(19_999), length: fc.integer({ min: 1, max: 600 }) });
  fc.assert(
    fc.property(fc.array(place, { minLength: 1, maxLength: 3 }), fc.boolean(), (places, cut) => {
      const whole = Buffer.from(Array.from({ length: 20_000 }, (_, i) => (i * 31 + (i >> 8)) & 255));
      const [a, b] = [Buffer.from(whole), Buffer.from(whole)];
      // The first half of the object in one copy, the second half in the other.
      for (const { at, length } of places) {
        const target = at < 10_000 ? a : b;
        const end = Math.min(at + length, at < 10_000 ? 9000 : 20_000);
        for (let i = at; i < end; i++) target[i] = (target[i] ?? 0) ^ 0xff;
      }
      const short = cut ? a.subarray(0, 15_000) : a;
      const isGood = (bytes: Buffer) => bytes.equals(whole);
      if (isGood(short) || isGood(b)) return;
      const spliced = splice(short, b, isGood);
      const recoverable = !cut || !places.some(({ at, length }) => at >= 10_000 && at + length > 15_000);
      if (recoverable) expect(spliced?.equals(whole)).toBe(true);
      else expect(spliced).toBeUndefined();
    }),
    { numRuns: 100 },
  );
  const whole = Buffer.alloc(1000, 7);
  const [a, b] = [Buffer.from(whole), Buffer.from(whole)];
  a[500] = 1;
  b[500] = 2;
  expect(splice(a, b, (bytes) => bytes.equals(whole))).toBeUndefined();
});
