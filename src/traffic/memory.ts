import { type Clock, systemClock } from '../base/clock.ts';
import { DrError } from '../base/errors.ts';
import type { TrafficChange, TrafficDriver, TrafficFinding, TrafficState } from './contract.ts';
import {
  checkedValues,
  conflict,
  generationOf,
  plainName,
  plainValues,
  type RecordKind,
  sameValues,
} from './record.ts';

export interface MemoryTrafficOptions {
  readonly record: string;
  readonly type: RecordKind;
  readonly ttlSeconds: number;
  /** What is published at first; default nothing. */
  readonly values?: readonly string[];
  readonly clock?: Clock;
}

/** One record with its history of changes; several drivers on one zone are several writers. */
export class MemoryZone {
  values: readonly string[] = [];
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

  publish(values: readonly string[], ttlSeconds: number): string {
    this.values = values;
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
  readonly zone: MemoryZone;
  readonly #options: MemoryTrafficOptions;

  constructor(options: MemoryTrafficOptions, zone: MemoryZone = new MemoryZone()) {
    this.#options = options;
    this.zone = zone;
    this.target = `memory record ${plainName(options.record)} ${options.type}`;
    if (options.values !== undefined) zone.publish(plainValues(options.type, options.values), options.ttlSeconds);
  }

  async current(signal?: AbortSignal): Promise<TrafficState> {
    this.#stopIfAborted(signal);
    return this.#state();
  }

  #state(): TrafficState {
    const { record, type } = this.#options;
    const { values, ttlSeconds } = this.zone;
    return {
      name: `${plainName(record)} ${type}`,
      values,
      ttlSeconds,
      generation: generationOf(record, type, values, ttlSeconds),
    };
  }

  async point(values: readonly string[], replaces: TrafficState, signal?: AbortSignal): Promise<TrafficChange> {
    const { record, type, ttlSeconds, clock = systemClock } = this.#options;
    const wanted = checkedValues(record, type, values);
    this.#stopIfAborted(signal);
    // No await from here to `publish`: that makes it the compare-and-swap that Route 53 does for a batch.
    const found = this.#state();
    if (found.ttlSeconds === ttlSeconds && sameValues(type, found.values, wanted)) {
      return { id: 'unchanged', submittedAtMs: clock.now() };
    }
    if (found.generation !== replaces.generation) throw conflict(this.target, replaces, found);
    return { id: this.zone.publish(wanted, ttlSeconds), submittedAtMs: clock.now() };
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

  async answers(
    signal?: AbortSignal,
  ): Promise<ReadonlyArray<{ server: string; values: readonly string[]; error?: string }>> {
    this.#stopIfAborted(signal);
    return [{ server: 'memory', values: this.zone.answered }];
  }

  async doctor(signal?: AbortSignal): Promise<readonly TrafficFinding[]> {
    const { values, ttlSeconds, name } = await this.current(signal);
    if (values.length === 0) return [{ ok: false, what: `there is no record ${name}`, next: 'Create it.' }];
    const short = ttlSeconds <= 60;
    return [
      { ok: true, what: `${name} points to ${values.join(', ')}` },
      {
        ok: short,
        what: `the TTL of ${name} is ${ttlSeconds} s`,
        ...(short ? {} : { next: 'Lower it to 60 s or less.' }),
      },
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
