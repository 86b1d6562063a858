import fc from 'fast-check';
import { expect, test } from 'vitest';
import { WalClock } from '../../../src/backup/wal/clock.ts';

const at = (ms: number) => ({ serverMs: ms, localMs: ms });

test('one answer of a server says what it has sent, a second one that it had no more', () => {
  const clock = new WalClock();
  clock.noteSent(100n, at(1000));
  expect(clock.coveredAt(100n)).toBeUndefined();
  clock.noteSent(200n, at(2000));
  expect(clock.coveredAt(1000n)).toBeUndefined();
  clock.noteSent(200n, at(3000));
  expect(clock.coveredAt(200n)).toEqual(at(2000));
  expect(clock.coveredAt(199n)).toBeUndefined();
  // Answers on two connections are not of one loop.
  clock.begin();
  clock.noteSent(200n, at(9000));
  expect(clock.coveredAt(200n)).toEqual(at(2000));
});

test('a timeline that ended says nothing of what the next one had by then', () => {
  const clock = new WalClock();
  clock.note(100n, at(1000));
  clock.note(200n, at(2000));
  clock.noteSent(200n, at(2500));
  clock.forgetFrom(200n);
  expect(clock.coveredAt(300n)).toEqual(at(1000));
  clock.noteSent(200n, at(3500));
  expect(clock.coveredAt(300n)).toEqual(at(1000));
});

test('a message that waited is as old as it is, whatever the two clocks say', () => {
  const clock = new WalClock();
  clock.note(100n, clock.momentOf(1_000, 61_005));
  clock.note(200n, clock.momentOf(2_000, 75_000));
  expect(clock.coveredAt(200n)).toEqual({ serverMs: 2_000, localMs: 62_005 });
  // The server's clock was set back: the next connection finds out.
  clock.begin();
  clock.note(300n, clock.momentOf(1_500, 76_000));
  expect(clock.coveredAt(300n)).toEqual({ serverMs: 1_500, localMs: 76_000 });
});

type Message = { kind: 'wal'; length: bigint; end: bigint; ms: number } | { kind: 'alive'; sent: bigint; ms: number };

/** As WalSndLoop of PostgreSQL sends, over a network that takes `room` messages. */
class Walsender {
  readonly network: Message[] = [];
  readonly #buffer: Message[] = [];
  readonly #room: number;
  /** WAL that is flushed at each moment; a moment is a millisecond. */
  readonly flushed: bigint[] = [0n];
  #sent = 0n;
  asked = false;

  constructor(room: number) {
    this.#room = room;
  }

  get ms(): number {
    return this.flushed.length - 1;
  }

  pass(written: number): void {
    this.flushed.push((this.flushed.at(-1) ?? 0n) + BigInt(written));
  }

  turn(): void {
    const end = this.flushed.at(-1) ?? 0n;
    if (this.asked) this.#buffer.push({ kind: 'alive', sent: this.#sent, ms: this.ms });
    this.asked = false;
    if (this.#buffer.length === 0 && this.#sent < end) {
      const length = end - this.#sent > 3n ? 3n : end - this.#sent;
      this.#sent += length;
      this.#buffer.push({ kind: 'wal', length, end, ms: this.ms });
    }
    while (this.#buffer.length > 0 && this.network.length < this.#room)
      this.network.push(this.#buffer.shift() as Message);
  }
}

test('whatever the server writes and whenever it is heard: what is covered is true', () => {
  const step = fc.oneof(
    { weight: 3, arbitrary: fc.record({ do: fc.constant('pass' as const), written: fc.constantFrom(0, 0, 0, 1, 9) }) },
    { weight: 3, arbitrary: fc.constant({ do: 'turn' as const }) },
    { weight: 3, arbitrary: fc.constant({ do: 'take' as const }) },
    { weight: 2, arbitrary: fc.constant({ do: 'ask' as const }) },
  );
  let claims = 0;
  fc.assert(
    fc.property(fc.array(step, { minLength: 20, maxLength: 200 }), fc.integer({ min: 1, max: 4 }), (steps, room) => {
      const server = new Walsender(room);
      const clock = new WalClock();
      let received = 0n;
      let waiting = false;
      for (const action of steps) {
        if (action.do === 'pass') server.pass(action.written);
        else if (action.do === 'turn') server.turn();
        else if (action.do === 'ask' && !waiting) {
          waiting = true;
          server.asked = true;
        } else if (action.do === 'take') {
          const message = server.network.shift();
          if (message?.kind === 'wal') {
            received += message.length;
            clock.note(message.end, clock.momentOf(message.ms, server.ms));
          } else if (message) {
            waiting = false;
            clock.noteSent(message.sent, clock.momentOf(message.ms, server.ms));
            // It was flushed: the server looks for more before it reads what we ask next.
            server.turn();
          }
        }
        const covered = clock.coveredAt(received);
        if (!covered) continue;
        claims++;
        expect(server.flushed[covered.serverMs]).toBeLessThanOrEqual(received);
        expect(covered.localMs).toBeLessThanOrEqual(server.ms);
      }
    }),
    { numRuns: 500 },
  );
  expect(claims).toBeGreaterThan(1000);
});
