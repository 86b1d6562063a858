import { formatDuration } from '../base/units.ts';
import type { TriggerConfig } from '../config/types.ts';

/** One round of HTTP checks: an answer for each check. */
export interface ProbeRound {
  /** When it began, milliseconds since 1970. */
  readonly atMs: number;
  readonly answers: ReadonlyArray<{
    readonly ok: boolean;
    /** How long the answer took; of none, how long it was waited for. */
    readonly ms: number;
  }>;
}

/** What a query answered: a number, or why there is none. */
export type Metric = { readonly value: number } | { readonly problem: string };

/** Everything that was seen since the watch began. */
export interface Evidence {
  /** When the watch began: at the last change of the traffic. Milliseconds since 1970. */
  readonly sinceMs: number;
  /** Planned time from one round to the next, milliseconds. */
  readonly everyMs: number;
  /** In order of time; older ones than the longest window may be missing. Empty where there are no HTTP checks. */
  readonly rounds: readonly ProbeRound[];
  /** The newest answers of the queries that are configured; the share of errors is 0 to 1, the p95 in seconds. */
  readonly metrics: { readonly errors?: Metric; readonly p95?: Metric };
}

/** Whether traffic has to be taken back. */
export interface TriggerDecision {
  /** `fire`: take it back now. `hold`: nothing speaks against going on, as far as was seen. */
  readonly decision: 'fire' | 'hold';
  /** True when every window was watched to its end: only then does a `hold` allow the next step. */
  readonly complete: boolean;
  /** Why it fires; of a `hold` that is not complete, what is not known yet. */
  readonly reasons: readonly string[];
}

/** A round that comes later than this many times its distance leaves a gap: nobody watched. */
const gapFactor = 3;

/**
 * Judges by the seeds of the runbooks: too many errors, too slow, failing health checks. A trigger over a window fires before
 * the window is over only when no later answer could change that. Pure: everything it knows is in its arguments.
 */
export function judgeTriggers(policy: TriggerConfig, evidence: Evidence, nowMs: number): TriggerDecision {
  const fired = [
    tooManyErrors(policy, evidence, nowMs),
    tooSlow(policy, evidence, nowMs),
    failingHealth(policy, evidence, nowMs),
    ...badMetrics(policy, evidence),
  ].filter((reason) => reason !== undefined);
  if (fired.length > 0) return { decision: 'fire', complete: true, reasons: fired };
  const open = unknowns(policy, evidence, nowMs);
  return { decision: 'hold', complete: open.length === 0, reasons: open };
}

function tooManyErrors({ errors }: TriggerConfig, evidence: Evidence, nowMs: number): string | undefined {
  const { answers, most } = windowOf(evidence, errors.overMs, nowMs);
  const bad = answers.filter(({ ok }) => !ok).length;
  // Compared as a product: 3 of 60 is exactly 5 %, which is not too much.
  if (bad === 0 || bad <= errors.above * most) return undefined;
  return `${bad} of ${answers.length} HTTP checks failed within ${formatDuration(errors.overMs)}, more than ${percent(errors.above)}`;
}

function tooSlow({ p95 }: TriggerConfig, evidence: Evidence, nowMs: number): string | undefined {
  const { answers, most } = windowOf(evidence, p95.overMs, nowMs);
  const slow = answers.filter(({ ms }) => ms > p95.aboveMs).length;
  // The p95 (nearest rank) is too high exactly when more answers are slow than lie above it.
  if (slow <= most - Math.ceil((95 * most) / 100)) return undefined;
  return `the p95 of the HTTP checks is ${Math.round(percentile95(answers.map(({ ms }) => ms)))} ms within ${formatDuration(p95.overMs)}, more than ${p95.aboveMs} ms (${slow} of ${answers.length} were slower)`;
}

function failingHealth({ health }: TriggerConfig, { rounds }: Evidence, nowMs: number): string | undefined {
  const failed = recent(rounds, health.withinMs, nowMs).filter(({ answers }) => answers.some(({ ok }) => !ok)).length;
  if (failed < health.failures) return undefined;
  return `${failed} health checks failed within ${formatDuration(health.withinMs)}`;
}

function badMetrics({ errors, p95 }: TriggerConfig, { metrics }: Evidence): Array<string | undefined> {
  const share = numberOf(metrics.errors);
  const seconds = numberOf(metrics.p95);
  return [
    share !== undefined && share > errors.above
      ? `${percent(share)} of all requests fail by Prometheus, more than ${percent(errors.above)}`
      : undefined,
    seconds !== undefined && seconds * 1000 > p95.aboveMs
      ? `the p95 of all requests is ${Math.round(seconds * 1000)} ms by Prometheus, more than ${p95.aboveMs} ms`
      : undefined,
  ];
}

/** What keeps a `hold` from being reliable. */
function unknowns({ errors, p95, health }: TriggerConfig, evidence: Evidence, nowMs: number): string[] {
  const { rounds, metrics, sinceMs, everyMs } = evidence;
  const longest = Math.max(errors.overMs, p95.overMs, health.withinMs);
  const open: string[] = [];
  const watchedMs = nowMs - sinceMs;
  if (watchedMs < longest) open.push(`watched for ${formatDuration(watchedMs)} of ${formatDuration(longest)}`);
  for (const [name, metric] of Object.entries(metrics)) {
    if ('problem' in metric) open.push(`the query for ${name} has no number: ${metric.problem}`);
  }
  const measured = metrics.errors !== undefined && metrics.p95 !== undefined;
  if (rounds.length === 0 && !measured) open.push('no HTTP check and no query shows errors and response times');
  const gap = rounds.length === 0 ? 0 : widestGap(recent(rounds, longest, nowMs), sinceMs, longest, nowMs);
  if (gap > gapFactor * everyMs) open.push(`nobody looked for ${formatDuration(gap)}`);
  return open;
}

/** The answers within the window, and how many there can be at most when it is over. */
function windowOf({ rounds, sinceMs, everyMs }: Evidence, overMs: number, nowMs: number) {
  const inside = recent(rounds, overMs, nowMs);
  const answers = inside.flatMap((round) => round.answers);
  const leftMs = Math.max(0, overMs - (nowMs - sinceMs));
  const perRound = inside.at(-1)?.answers.length ?? 0;
  return { answers, most: answers.length + Math.ceil(leftMs / everyMs) * perRound };
}

function recent(rounds: readonly ProbeRound[], withinMs: number, nowMs: number): readonly ProbeRound[] {
  return rounds.filter(({ atMs }) => atMs > nowMs - withinMs && atMs <= nowMs);
}

function widestGap(rounds: readonly ProbeRound[], sinceMs: number, longest: number, nowMs: number): number {
  let widest = 0;
  let before = Math.max(sinceMs, nowMs - longest);
  for (const { atMs } of [...rounds, { atMs: nowMs }]) {
    widest = Math.max(widest, atMs - before);
    before = atMs;
  }
  return widest;
}

/** Nearest rank: the smallest value that 95 of 100 do not exceed. */
export function percentile95(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil((95 * sorted.length) / 100) - 1)] ?? 0;
}

function numberOf(metric: Metric | undefined): number | undefined {
  return metric !== undefined && 'value' in metric ? metric.value : undefined;
}

function percent(share: number): string {
  return `${Math.round(share * 1000) / 10} %`;
}
