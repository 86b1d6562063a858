import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { DrError } from '../../src/base/errors.ts';
import type { TrafficDriver, TrafficState } from '../../src/traffic/contract.ts';

/** One record of its own to write to: absent at first, or made beforehand. */
export interface TrafficFixture extends AsyncDisposable {
  /** A new driver for the record, of type A and TTL 30 s: two of them are two writers. */
  open(): TrafficDriver;
  /** Keeps accepted changes from the name servers until `release`; absent where the endpoint is not ours. */
  readonly hold?: (() => void) | undefined;
  readonly release?: (() => void) | undefined;
  /** False where the endpoint has no name servers to ask (an API emulator). */
  readonly hasNameServers: boolean;
  /** False for an emulator that deletes whatever values a DELETE names, or remembers a CREATE of a record since deleted. */
  readonly isFaithful: boolean;
  /** What the name may point to, where it cannot be anything: one value for each of two or three sites. */
  readonly sites?: readonly string[] | undefined;
  /** True where people make the record beforehand: then it points to the first of `sites`. */
  readonly isPremade?: boolean | undefined;
  /** False where a resolver gives no answer to this record. */
  readonly hasResolver?: boolean;
}

const anywhere = [['192.0.2.10', '192.0.2.11'], ['198.51.100.10'], ['203.0.113.10']];

/** What every traffic driver promises (`src/traffic/contract.ts`), tried on a real one. */
export function trafficConformance(name: string, start: () => Promise<TrafficFixture>): void {
  describe(`traffic contract: ${name}`, () => {
    let fixture: TrafficFixture;
    let driver: TrafficDriver;
    let rival: TrafficDriver;
    let east: readonly string[];
    let west: readonly string[];
    let south: readonly string[] | undefined;

    beforeEach(async () => {
      fixture = await start();
      driver = fixture.open();
      rival = fixture.open();
      const places = fixture.sites?.map((value) => [value]) ?? anywhere;
      east = places[0] ?? [];
      west = places[1] ?? [];
      south = places[2];
    });

    afterEach(async () => {
      driver.close();
      rival.close();
      await fixture[Symbol.asyncDispose]();
    });

    /** Publishes and waits until it is visible; returns the state reached. */
    async function publish(values: readonly string[]): Promise<TrafficState> {
      await driver.settled(await driver.point(values, await driver.current()));
      return driver.current();
    }

    it('shows a record that is not there as no values, and creates it', async (test) => {
      test.skip(fixture.isPremade === true, 'its record is made by people');
      const before = await driver.current();
      expect(before).toMatchObject({ values: [], ttlSeconds: 0 });
      const after = await publish(east);
      expect(after).toMatchObject({ name: before.name, values: east, ttlSeconds: 30 });
      expect(after.generation).not.toBe(before.generation);
    });

    it('replaces all values at once', async () => {
      const first = await publish(east);
      const second = await publish(west);
      expect(second.values).toEqual(west);
      expect(second.generation).not.toBe(first.generation);
      expect(await rival.current()).toEqual(second);
    });

    it('gives the same content the same generation, for every reader', async (test) => {
      test.skip(!fixture.isFaithful, 'needs an endpoint that lets a record be created again');
      const first = await publish(east);
      await publish(west);
      expect(await publish([...east].reverse())).toEqual(first);
      expect(await rival.current()).toEqual(first);
    });

    it('says success when the values are published already, even when the caller knew an older state', async () => {
      const old = await driver.current();
      await publish(west);
      const published = await publish(fixture.isFaithful ? east : (south ?? west));
      for (const known of [old, published]) {
        const change = await rival.point(published.values, known);
        if (fixture.hasNameServers) await rival.settled(change);
      }
      expect(await driver.current()).toEqual(published);
    });

    it('refuses an empty list and values that are none of the type, and changes nothing', async () => {
      const published = await publish(east);
      for (const values of [[], [''], ['west.example.com'], ['2001:db8::1'], ['192.0.2.256'], [...west, 'nonsense']]) {
        await expect(driver.point(values, published)).rejects.toMatchObject({ kind: 'refused' });
      }
      expect(await driver.current()).toEqual(published);
    });

    it('refuses values that it has no place for, and changes nothing', async (test) => {
      test.skip(fixture.sites === undefined, 'takes any value');
      const published = await publish(east);
      const error = await driver.point(['192.0.2.99'], published).catch((e: unknown) => e);
      expect(error).toMatchObject({ kind: 'refused', next: expect.stringContaining('endpoints') });
      expect(await driver.current()).toEqual(published);
    });

    it('refuses to replace a state that is no longer there, naming both, and changes nothing', async () => {
      const known = await publish(east);
      await rival.point(west, await rival.current());
      const third = south ?? east;
      const error = await driver.point(third, known).catch((e: unknown) => e);
      expect(error).toBeInstanceOf(DrError);
      expect(error).toMatchObject({ kind: 'conflict', retryable: false });
      for (const value of [...east, ...west]) expect(String(error)).toContain(value);
      expect((await driver.current()).values).toEqual(west);
    });

    it('refuses to create over a record that appeared in the meantime', async (test) => {
      test.skip(fixture.isPremade === true, 'its record is made by people');
      const absent = await driver.current();
      await rival.point(west, absent);
      await expect(driver.point(south ?? east, absent)).rejects.toMatchObject({ kind: 'conflict' });
      expect((await driver.current()).values).toEqual(west);
    });

    it('lets exactly one of many writers that saw the same state succeed', async (test) => {
      test.skip(!fixture.isFaithful, 'needs an endpoint that compares the values of a DELETE');
      const [, ...others] = fixture.sites ?? [];
      test.skip(
        fixture.sites !== undefined && others.length < 2,
        'needs a name with more than one other place to go to',
      );
      const known = await publish(east);
      const writers = Array.from({ length: 8 }, (_, i) => ({
        open: fixture.open(),
        values: [others[i % others.length] ?? `198.51.100.${100 + i}`],
      }));
      const outcomes = await Promise.allSettled(writers.map((writer) => writer.open.point(writer.values, known)));
      for (const writer of writers) writer.open.close();
      const winners = new Set(
        writers.filter((_, i) => outcomes[i]?.status === 'fulfilled').map(({ values }) => values[0]),
      );
      expect(winners.size).toBe(1);
      for (const outcome of outcomes) {
        if (outcome.status === 'rejected') expect(outcome.reason).toMatchObject({ kind: 'conflict' });
      }
      expect((await driver.current()).values).toEqual([...winners]);
    });

    it('does nothing for a caller that has stopped already', async () => {
      const published = await publish(east);
      const stopped = AbortSignal.abort();
      await expect(driver.current(stopped)).rejects.toMatchObject({ kind: 'interrupted' });
      await expect(driver.point(west, published, stopped)).rejects.toMatchObject({ kind: 'interrupted' });
      expect(await driver.current()).toEqual(published);
    });

    it('lets every name server and resolver answer the new values once settled', async (test) => {
      test.skip(!fixture.hasNameServers, 'needs name servers to ask');
      for (const values of [west, east]) {
        await publish(values);
        const answers = await driver.answers();
        expect(answers.length).toBeGreaterThan(0);
        for (const answer of answers) expect(answer).toEqual({ server: answer.server, values });
        if (fixture.hasResolver === false) continue;
        const resolved = await driver.resolved();
        expect(resolved.length).toBeGreaterThan(0);
        for (const answer of resolved) expect(answer).toEqual({ server: answer.server, values, ttlSeconds: 30 });
      }
    });

    it('settles only when the name servers have the change, also for a caller that found it made already', async (test) => {
      const { hold, release } = fixture;
      test.skip(hold === undefined || release === undefined, 'needs an endpoint whose propagation can be held');
      await publish(east);
      hold?.();
      const change = await driver.point(west, await driver.current());
      const found = await rival.point(west, await rival.current());
      expect((await driver.answers())[0]?.values).toEqual(east);
      const settled: string[] = [];
      const both = [
        driver.settled(change).then(() => settled.push('mine')),
        rival.settled(found).then(() => settled.push('found')),
      ];
      const deadline = await driver.settled(change, AbortSignal.timeout(50)).catch((e: unknown) => e);
      expect(deadline).toMatchObject({ kind: 'unreachable', retryable: true });
      expect(String(deadline)).toContain(change.id);
      await expect(driver.settled(change, AbortSignal.abort())).rejects.toMatchObject({ kind: 'interrupted' });
      expect(settled).toEqual([]);
      release?.();
      await Promise.all(both);
      expect((await driver.answers())[0]?.values).toEqual(west);
    });

    it('examines without changing anything, and finds the missing record', async () => {
      if (!fixture.isPremade) {
        const absent = await driver.current();
        expect((await driver.doctor()).filter((finding) => !finding.ok).map((finding) => finding.what)).toContainEqual(
          expect.stringContaining('there is no record'),
        );
        expect(await driver.current()).toEqual(absent);
      }
      const published = await publish(east);
      const findings = await driver.doctor();
      expect(findings).toContainEqual(
        expect.objectContaining({ ok: true, what: expect.stringContaining(east[0] ?? '') }),
      );
      for (const finding of findings) if (!finding.ok) expect(finding.next).toMatch(/\.$/);
      if (fixture.hasNameServers) expect(findings.filter((finding) => !finding.ok)).toEqual([]);
      expect(await driver.current()).toEqual(published);
    });

    it('finds another writer by what dr wrote last', async () => {
      await publish(east);
      const wrote = { atMs: Date.UTC(2026, 0, 1), by: 'run 1' };
      const said = async (values: readonly string[]) =>
        (await driver.doctor(undefined, { ...wrote, values })).filter(({ what }) => what.includes('run 1'));
      expect(await said(east)).toEqual([expect.objectContaining({ ok: true })]);
      const [found] = await said(west);
      expect(found).toMatchObject({ ok: false, severity: 'warning', next: expect.stringMatching(/\.$/) });
      for (const value of [...east, ...west]) expect(found?.what).toContain(value);
    });

    describe('a shift', () => {
      const split = (percent: number) => ({ from: east[0] ?? '', to: west[0] ?? '', percent });
      const shift = async (percent: number) => {
        await driver.settled(await driver.shift(split(percent), await driver.current()));
        return await driver.current();
      };

      it('of all or nothing is a switch, for every driver', async () => {
        await publish(fixture.isFaithful ? east : [east[0] ?? '']);
        expect((await shift(100)).values).toEqual(west);
        if (fixture.isFaithful) expect((await shift(0)).values).toEqual([east[0]]);
      });

      it('is refused with a share that is none, and changes nothing', async () => {
        const published = await publish(east);
        for (const percent of [-1, 101, 12.5, Number.NaN]) {
          await expect(driver.shift(split(percent), published)).rejects.toMatchObject({ kind: 'refused' });
        }
        expect(await driver.current()).toEqual(published);
      });

      it('in parts is refused by a driver that only switches, and changes nothing', async (test) => {
        test.skip(driver.shifting !== 'whole', 'shifts gradually');
        const published = await publish(east);
        const error = await driver.shift(split(50), published).catch((e: unknown) => e);
        expect(error).toMatchObject({ kind: 'refused', next: expect.stringContaining('weighted') });
        expect(await driver.current()).toEqual(published);
      });

      it('goes step by step, and its shares say so', async (test) => {
        test.skip(driver.shifting !== 'gradual', 'only switches');
        await publish(east);
        const generations = new Set<string>();
        for (const percent of [10, 25, 50, 100]) {
          const state = await shift(percent);
          generations.add(state.generation);
          const shares = Object.fromEntries((state.shares ?? []).map((share) => [share.value, share.percent]));
          expect(shares[west[0] ?? '']).toBe(percent);
          expect(shares[east[0] ?? ''] ?? 0).toBe(100 - percent);
          expect(state.values).toEqual(percent === 100 ? west : [...east.slice(0, 1), ...west].sort());
          expect(await rival.current()).toEqual(state);
          if (!fixture.hasNameServers) continue;
          for (const answer of await driver.answers())
            expect(state.values).toEqual(expect.arrayContaining([...answer.values]));
        }
        expect(generations.size).toBe(4);
      });

      it('that is there already is a success, whatever the caller knew', async (test) => {
        test.skip(driver.shifting !== 'gradual', 'only switches');
        const old = await publish(east);
        const divided = await shift(25);
        await rival.shift(split(25), old);
        expect(await driver.current()).toEqual(divided);
      });

      it('replaces only the division that it knew', async (test) => {
        test.skip(driver.shifting !== 'gradual', 'only switches');
        const known = await publish(east);
        await rival.shift(split(10), known);
        const error = await driver.shift(split(50), known).catch((e: unknown) => e);
        expect(error).toMatchObject({ kind: 'conflict', retryable: false });
        expect(String(error)).toMatch(/90 %.*10 %|10 %.*90 %/);
        expect((await driver.current()).shares).toContainEqual({ value: west[0], percent: 10 });
      });

      it('takes traffic from every third place', async (test) => {
        test.skip(
          driver.shifting !== 'gradual' || south === undefined || !fixture.isFaithful,
          'only switches, or has no third place',
        );
        await publish(south ?? []);
        expect((await shift(50)).values).toEqual([east[0], west[0]]);
      });
    });
  });
}
