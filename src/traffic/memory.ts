import { type Clock, systemClock } from '../base/clock.ts';
import { DrError } from '../base/errors.ts';
import type {
  LastWritten,
  ResolverAnswer,
  TrafficAnswer,
  TrafficChange,
  TrafficDriver,
  TrafficFinding,
  TrafficShare,
  TrafficSplit,
  TrafficState,
} from './contract.ts';
import {
  checkedValues,
  checkPercent,
  conflict,
  digestOf,
  generationOf,
  plainName,
  plainValues,
  type RecordKind,
  sameValues,
  wholeOf,
} from './record.ts';
import { rivalFinding } from './rivals.ts';

export interface MemoryTrafficOptions {
  readonly record: string;
  readonly type: RecordKind;
  readonly ttlSeconds: number;
  /** What is published at first; default nothing. */
  readonly values?: readonly string[];
  /** Default `whole`. */
  readonly shifting?: 'gradual' | 'whole';
  readonly clock?: Clock;
}

/** One record with its history of changes; several drivers on one zone are several writers. */
export class MemoryZone {
  values: readonly string[] = [];
  /** Of a name that is shifted gradually: the share of every value that was ever published, values without traffic included. */
  shares: readonly TrafficShare[] = [];
  ttlSeconds = 0;
  /** What name servers answer: follows `values` once a change settles. */
  answered: readonly string[] = [];
  /** While held, accepted changes stay pending. */
  #held = false;
  #changes = 0;
  readonly #waiting = new Set<() => void>();

  /** From now on accepted changes stay pending until `release`. */
  hold(): void {
    this.#held = true;
  }

  /** Lets all pending changes reach the name servers, and later ones at once. */
  release(): void {
    this.#held = false;
    this.answered = this.values;
    for (const wake of this.#waiting) wake();
    this.#waiting.clear();
  }

  publish(values: readonly string[], ttlSeconds: number, shares: readonly TrafficShare[] = evenShares(values)): string {
    this.values = values;
    this.shares = shares;
    this.ttlSeconds = ttlSeconds;
    if (!this.#held) this.answered = values;
    this.#changes++;
    return `M${this.#changes}`;
  }

  /** Resolves once nothing is pending; rejects when the signal aborts. */
  async settle(signal: AbortSignal | undefined): Promise<void> {
    if (!this.#held) return;
    await new Promise<void>((resolve, reject) => {
      const onAbort = () => {
        this.#waiting.delete(wake);
        reject(signal?.reason);
      };
      const wake = () => {
        signal?.removeEventListener('abort', onAbort);
        resolve();
      };
      if (signal?.aborted) reject(signal.reason);
      else {
        signal?.addEventListener('abort', onAbort, { once: true });
        this.#waiting.add(wake);
      }
    });
  }
}

/** The contract in memory: for tests and simulations of what uses traffic, with the same rules as Route 53. */
export class MemoryTraffic implements TrafficDriver {
  readonly kind = 'memory';
  readonly target: string;
  readonly shifting: 'gradual' | 'whole';
  readonly zone: MemoryZone;
  readonly #options: MemoryTrafficOptions;

  constructor(options: MemoryTrafficOptions, zone: MemoryZone = new MemoryZone()) {
    this.#options = options;
    this.zone = zone;
    this.shifting = options.shifting ?? 'whole';
    this.target = `memory record ${plainName(options.record)} ${options.type}`;
    if (options.values !== undefined) zone.publish(plainValues(options.type, options.values), options.ttlSeconds);
  }

  async current(signal?: AbortSignal): Promise<TrafficState> {
    this.#stopIfAborted(signal);
    return this.#state();
  }

  #state(): TrafficState {
    const { record, type } = this.#options;
    const { values, ttlSeconds, shares } = this.zone;
    const state = { name: `${plainName(record)} ${type}`, values, ttlSeconds };
    if (this.shifting === 'whole') return { ...state, generation: generationOf(record, type, values, ttlSeconds) };
    return { ...state, shares, generation: digestOf([state, shares.filter(({ percent }) => percent > 0)]) };
  }

  async point(values: readonly string[], replaces: TrafficState, signal?: AbortSignal): Promise<TrafficChange> {
    const { record, type } = this.#options;
    const wanted = checkedValues(record, type, values);
    return await this.#publish(evenShares(wanted), replaces, signal);
  }

  async shift(split: TrafficSplit, replaces: TrafficState, signal?: AbortSignal): Promise<TrafficChange> {
    const { from, to, percent } = split;
    if (this.shifting === 'whole') return await this.point([wholeOf(split, this.target)], replaces, signal);
    checkPercent(percent, this.target);
    checkedValues(this.#options.record, this.#options.type, [from, to]);
    const shares = [
      { value: from, percent: 100 - percent },
      { value: to, percent },
    ];
    return await this.#publish(shares, replaces, signal);
  }

  async #publish(
    shares: readonly TrafficShare[],
    replaces: TrafficState,
    signal: AbortSignal | undefined,
  ): Promise<TrafficChange> {
    const { type, ttlSeconds, clock = systemClock } = this.#options;
    this.#stopIfAborted(signal);
    // No await from here to `publish`: that makes it the compare-and-swap that Route 53 does for a batch.
    const found = this.#state();
    const sorted = [...shares].sort((a, b) => (a.value < b.value ? -1 : 1));
    const wanted = sorted.filter(({ percent }) => percent > 0).map(({ value }) => value);
    const same =
      this.shifting === 'whole' ? sameValues(type, found.values, wanted) : isSameDivision(found.shares ?? [], sorted);
    if (found.ttlSeconds === ttlSeconds && same) return { id: 'unchanged', submittedAtMs: clock.now() };
    if (found.generation !== replaces.generation) throw conflict(this.target, replaces, found);
    return { id: this.zone.publish(wanted, ttlSeconds, sorted), submittedAtMs: clock.now() };
  }

  async settled(change: TrafficChange, signal?: AbortSignal): Promise<void> {
    try {
      await this.zone.settle(signal);
    } catch (error) {
      const timedOut = error instanceof Error && error.name === 'TimeoutError';
      throw new DrError(
        timedOut ? 'unreachable' : 'interrupted',
        `change ${change.id} is not visible on all name servers: PENDING`,
        {
          where: this.target,
          cause: error,
        },
      );
    }
  }

  async answers(signal?: AbortSignal): Promise<readonly TrafficAnswer[]> {
    this.#stopIfAborted(signal);
    return [{ server: 'memory', values: this.zone.answered }];
  }

  async resolved(signal?: AbortSignal): Promise<readonly ResolverAnswer[]> {
    this.#stopIfAborted(signal);
    return [{ server: 'memory resolver', values: this.zone.answered, ttlSeconds: this.zone.ttlSeconds }];
  }

  async doctor(signal?: AbortSignal, wrote?: LastWritten): Promise<readonly TrafficFinding[]> {
    const state = await this.current(signal);
    const { values, ttlSeconds, name } = state;
    if (values.length === 0) return [{ ok: false, what: `there is no record ${name}`, next: 'Create it.' }];
    const short = ttlSeconds <= 60;
    return [
      { ok: true, what: `${name} points to ${values.join(', ')}` },
      {
        ok: short,
        what: `the TTL of ${name} is ${ttlSeconds} s`,
        ...(short ? {} : { severity: 'warning' as const, next: 'Lower it to 60 s or less.' }),
      },
      ...rivalFinding(this.#options.type, state, wrote),
    ];
  }

  close(): void {}

  #stopIfAborted(signal: AbortSignal | undefined): void {
    if (signal?.aborted) {
      throw new DrError('interrupted', 'the work on the record was stopped', {
        where: this.target,
        cause: signal.reason,
      });
    }
  }
}

function evenShares(values: readonly string[]): TrafficShare[] {
  return values.map((value) => ({ value, percent: 100 / values.length }));
}

function isSameDivision(a: readonly TrafficShare[], b: readonly TrafficShare[]): boolean {
  const content = (shares: readonly TrafficShare[]) => JSON.stringify(shares.filter(({ percent }) => percent > 0));
  return content(a) === content(b);
}
