import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { DrError } from '../../src/base/errors.ts';
import type { TrafficDriver, TrafficState } from '../../src/traffic/contract.ts';

/** One record of its own to write to, absent at first. */
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
}

const east = ['192.0.2.10', '192.0.2.11'];
const west = ['198.51.100.10'];
const south = ['203.0.113.10'];

/** What every traffic driver promises (`src/traffic/contract.ts`), tried on a real one. */
export function trafficConformance(name: string, start: () => Promise<TrafficFixture>): void {
  describe(`traffic contract: ${name}`, () => {
    let fixture: TrafficFixture;
    let driver: TrafficDriver;
    let rival: TrafficDriver;

    beforeEach(async () => {
      fixture = await start();
      driver = fixture.open();
      rival = fixture.open();
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

    it('shows a record that is not there as no values, and creates it', async () => {
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
      const published = await publish(east);
      for (const known of [old, published]) {
        const change = await rival.point(east, known);
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

    it('refuses to replace a state that is no longer there, naming both, and changes nothing', async () => {
      const known = await publish(east);
      await rival.point(west, await rival.current());
      const error = await driver.point(south, known).catch((e: unknown) => e);
      expect(error).toBeInstanceOf(DrError);
      expect(error).toMatchObject({ kind: 'conflict', retryable: false });
      for (const value of [...east, ...west]) expect(String(error)).toContain(value);
      expect((await driver.current()).values).toEqual(west);
    });

    it('refuses to create over a record that appeared in the meantime', async () => {
      const absent = await driver.current();
      await rival.point(west, absent);
      await expect(driver.point(south, absent)).rejects.toMatchObject({ kind: 'conflict' });
      expect((await driver.current()).values).toEqual(west);
    });

    it('lets exactly one of many writers that saw the same state succeed', async (test) => {
      test.skip(!fixture.isFaithful, 'needs an endpoint that compares the values of a DELETE');
      const known = await publish(east);
      const writers = Array.from({ length: 8 }, (_, i) => ({
        open: fixture.open(),
        values: [`198.51.100.${100 + i}`],
      }));
      const outcomes = await Promise.allSettled(writers.map((writer) => writer.open.point(writer.values, known)));
      for (const writer of writers) writer.open.close();
      const winners = writers.filter((_, i) => outcomes[i]?.status === 'fulfilled');
      expect(winners).toHaveLength(1);
      for (const outcome of outcomes) {
        if (outcome.status === 'rejected') expect(outcome.reason).toMatchObject({ kind: 'conflict' });
      }
      expect((await driver.current()).values).toEqual(winners[0]?.values);
    });

    it('does nothing for a caller that has stopped already', async () => {
      const published = await publish(east);
      const stopped = AbortSignal.abort();
      await expect(driver.current(stopped)).rejects.toMatchObject({ kind: 'interrupted' });
      await expect(driver.point(west, published, stopped)).rejects.toMatchObject({ kind: 'interrupted' });
      expect(await driver.current()).toEqual(published);
    });

    it('lets every name server answer the new values once settled', async (test) => {
      test.skip(!fixture.hasNameServers, 'needs name servers to ask');
      for (const values of [east, west]) {
        await publish(values);
        const answers = await driver.answers();
        expect(answers.length).toBeGreaterThan(0);
        for (const answer of answers) expect(answer).toEqual({ server: answer.server, values });
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
      const absent = await driver.current();
      expect((await driver.doctor()).filter((finding) => !finding.ok).map((finding) => finding.what)).toContainEqual(
        expect.stringContaining('there is no record'),
      );
      expect(await driver.current()).toEqual(absent);
      const published = await publish(east);
      const findings = await driver.doctor();
      expect(findings).toContainEqual(
        expect.objectContaining({ ok: true, what: expect.stringContaining('192.0.2.10') }),
      );
      for (const finding of findings) if (!finding.ok) expect(finding.next).toMatch(/\.$/);
      if (fixture.hasNameServers) expect(findings.filter((finding) => !finding.ok)).toEqual([]);
      expect(await driver.current()).toEqual(published);
    });
  });
}
