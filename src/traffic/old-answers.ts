import type { Clock } from '../base/clock.ts';
import type { ResolverAnswer, TrafficDriver, TrafficState } from './contract.ts';
import { showValues } from './record.ts';

/** Who may still be sent to the old place, and for how long. */
export interface OldAnswers {
  /** What the resolvers answered at the last look. */
  readonly resolvers: readonly ResolverAnswer[];
  /** Resolvers that still gave something else than the present state, with how long they go on, seconds. */
  readonly behind: readonly ResolverAnswer[];
  /** From this moment on no resolver that keeps to the TTL gives the old answer, milliseconds since 1970. */
  readonly gonePastMs: number;
  /** `gonePastMs` in one sentence, for people. */
  readonly sentence: string;
}

export interface OldAnswersOptions {
  readonly driver: Pick<TrafficDriver, 'current' | 'resolved'>;
  /** The state before the change: its TTL is what resolvers were told. */
  readonly before: Pick<TrafficState, 'values' | 'ttlSeconds'>;
  /** When the last authoritative server stopped giving the old answer (`settled` resolved), milliseconds since 1970. */
  readonly settledAtMs: number;
  readonly clock: Clock;
}

/**
 * Looks once at what resolvers answer after a change. A resolver may have asked right before the last authoritative
 * server followed, so the old answer lives for its whole TTL from then on, whatever the watched resolvers say: clients ask others
 * too. Resolvers and programs that keep answers longer than their TTL are beyond anybody's sight.
 */
export async function lookAtOldAnswers(options: OldAnswersOptions, signal?: AbortSignal): Promise<OldAnswers> {
  const { driver, before, settledAtMs, clock } = options;
  const state = await driver.current(signal);
  const resolvers = await driver.resolved(signal);
  const nowMs = clock.now();
  const isNow = (value: string) => state.values.includes(value);
  const old = before.values.filter((value) => !isNow(value));
  const behind = resolvers.filter(({ error, values }) => {
    if (error !== undefined) return false;
    // Nothing is an old answer only where nothing was published; else the resolver just does not know the name.
    return values.length === 0 ? before.values.length === 0 : !values.every(isNow);
  });
  // Of a name that was not there, resolvers keep that for a time of their own: only they show it.
  const untilMs = old.length === 0 ? settledAtMs : settledAtMs + before.ttlSeconds * 1000;
  const seenMs = behind.map(({ ttlSeconds = 0 }) => nowMs + ttlSeconds * 1000);
  const gonePastMs = Math.max(untilMs, ...seenMs);
  return { resolvers, behind, gonePastMs, sentence: sentenceOf(resolvers, behind, Math.max(0, gonePastMs - nowMs)) };
}

/**
 * Waits until old answers are gone: the old TTL is over, and every watched resolver that answers has the present state. Gives the last
 * look; with `behind` not empty when `limitMs` (default: 30 s past the TTL) was over before, which a caller may take as it is.
 */
export async function waitOutOldAnswers(
  options: OldAnswersOptions & {
    readonly limitMs?: number;
    /** Sees every look. */
    readonly onLook?: (look: OldAnswers) => void;
  },
  signal?: AbortSignal,
): Promise<OldAnswers> {
  const { clock, before, settledAtMs, onLook } = options;
  const limitMs = options.limitMs ?? before.ttlSeconds * 1000 + 30_000;
  for (;;) {
    const look = await lookAtOldAnswers(options, signal);
    onLook?.(look);
    const nowMs = clock.now();
    const leftMs = look.gonePastMs - nowMs;
    const endMs = settledAtMs + limitMs;
    if ((leftMs <= 0 && look.behind.length === 0) || nowMs >= endMs) return look;
    // A resolver that lags is asked again when it has to ask itself; at least every 5 s, so that people see it move.
    await clock.sleep(Math.max(250, Math.min(leftMs > 0 ? leftMs : 5000, 5000, endMs - nowMs)), signal);
  }
}

function sentenceOf(resolvers: readonly ResolverAnswer[], behind: readonly ResolverAnswer[], leftMs: number): string {
  const seconds = Math.ceil(leftMs / 1000);
  const rest =
    seconds === 0 ? 'the old TTL is over' : `clients may be sent to the old place for up to ${seconds} s more`;
  // Weights of a route reach clients without any resolver.
  if (resolvers.length === 0) return rest;
  const heard = resolvers.filter(({ error, values }) => error === undefined && values.length > 0);
  if (behind.length > 0) {
    const shown = behind.map(
      ({ server, values, ttlSeconds = 0 }) => `${server} answers ${showValues(values)} for ${ttlSeconds} s`,
    );
    return `${rest}; ${shown.join(', ')}`;
  }
  if (heard.length === 0) return `${rest}; no resolver that is asked from here knows the name`;
  return `${rest}; ${heard.length === 1 ? 'the resolver watched has' : `all ${heard.length} resolvers watched have`} the new answer`;
}
