import type { TrafficAnswer, TrafficFinding, TrafficState } from './contract.ts';
import type { NameWatch } from './name-watch.ts';
import { showValues } from './record.ts';

/** The longest TTL with which a redirect still reaches clients in time, seconds: resolvers keep the old answer that long. */
export const ttlLimitSeconds = 60;

/** Whether the record is there, and how long its answers live; `redirect` says what a redirect would publish. */
export function stateFindings(
  state: TrafficState,
  redirect: { readonly kind: string; readonly ttlSeconds: number },
): TrafficFinding[] {
  if (state.values.length === 0) {
    return [
      {
        ok: false,
        what: `there is no record ${state.name}`,
        next: 'Create it with the address of the active site: until then no client finds the system, and negative answers are cached.',
      },
    ];
  }
  const shares = state.shares?.filter(({ percent }) => percent > 0) ?? [];
  const shown = shares.length > 1 ? shares.map(({ value, percent }) => `${value} (${percent} %)`) : state.values;
  const findings: TrafficFinding[] = [{ ok: true, what: `${state.name} points to ${showValues(shown)}` }];
  findings.push(ttlFinding(state.name, state.ttlSeconds));
  if (redirect.ttlSeconds > ttlLimitSeconds) {
    findings.push({
      ok: false,
      severity: 'warning',
      what: `a redirect would publish a TTL of ${redirect.ttlSeconds} s`,
      next: `Set ${redirect.kind}.ttl of this traffic entry to ${ttlLimitSeconds} or less.`,
    });
  }
  return findings;
}

export function ttlFinding(name: string, ttlSeconds: number): TrafficFinding {
  const what = `the TTL of ${name} is ${ttlSeconds} s`;
  if (ttlSeconds <= ttlLimitSeconds) return { ok: true, what };
  return {
    ok: false,
    severity: 'warning',
    what,
    next: `Lower it to ${ttlLimitSeconds} s or less now: resolvers keep the old address that long after a redirect.`,
  };
}

/** What to do, as one sentence each, about answers that are not as they should be. */
export interface AnswerAdvice {
  readonly none: { readonly what: string; readonly next: string };
  readonly silent: string;
  readonly behind: string;
}

/** Whether every authoritative server gives what the record says. */
export function answerFindings(
  answers: readonly TrafficAnswer[],
  state: TrafficState,
  watch: NameWatch,
  advice: AnswerAdvice,
): TrafficFinding[] {
  if (answers.length === 0) return [{ ok: false, severity: 'warning', ...advice.none }];
  return answers.map(({ server, values, error }) => {
    if (error !== undefined) {
      return {
        ok: false,
        what: `name server ${server} does not answer for the zone: ${error}`,
        next: advice.silent,
      };
    }
    const what = `name server ${server} answers ${showValues(values)}`;
    if (watch.gives(values, state)) return { ok: true, what };
    return { ok: false, what: `${what}, but the record says ${showValues(state.values)}`, next: advice.behind };
  });
}
