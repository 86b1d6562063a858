import type { Clock } from '../base/clock.ts';
import type { TriggerConfig, ValidationConfig } from '../config/types.ts';
import type { ProbePort } from './ports.ts';
import { metricOf, queryUrl } from './prometheus.ts';
import { judgeTriggers, type Metric, type ProbeRound, type TriggerDecision } from './triggers.ts';

export interface TriggerWatchOptions {
  readonly policy: TriggerConfig;
  /** The HTTP checks of the site that gets the traffic. */
  readonly checks: ValidationConfig['http'];
  readonly probes: Pick<ProbePort, 'http'>;
  readonly clock: Clock;
  /** From one look to the next, milliseconds; default 5000. */
  readonly everyMs?: number;
}

/** Watches a site by its HTTP checks and Prometheus, from one change of the traffic to the next. */
export class TriggerWatch {
  readonly everyMs: number;
  readonly #options: TriggerWatchOptions;
  #sinceMs: number;
  #rounds: ProbeRound[] = [];

  constructor(options: TriggerWatchOptions) {
    this.#options = options;
    this.everyMs = options.everyMs ?? 5000;
    this.#sinceMs = options.clock.now();
  }

  /** False when nothing is configured that could show anything: a gradual shift would go on blindly. */
  get canSee(): boolean {
    const { checks, policy } = this.#options;
    const { prometheus } = policy;
    return checks.length > 0 || (prometheus?.errors !== undefined && prometheus.p95 !== undefined);
  }

  /** The traffic was changed: what was seen before says nothing about how it is now. */
  restart(): void {
    this.#sinceMs = this.#options.clock.now();
    this.#rounds = [];
  }

  /** Looks once at everything, and judges all looks since the last change. */
  async look(signal: AbortSignal): Promise<TriggerDecision> {
    const { policy, clock } = this.#options;
    const [errors, p95] = await Promise.all([
      this.#metric(policy.prometheus?.errors, signal),
      this.#metric(policy.prometheus?.p95, signal),
      this.#round(signal),
    ]);
    const nowMs = clock.now();
    const oldest = nowMs - Math.max(policy.errors.overMs, policy.p95.overMs, policy.health.withinMs);
    this.#rounds = this.#rounds.filter(({ atMs }) => atMs > oldest);
    const metrics = { ...(errors && { errors }), ...(p95 && { p95 }) };
    const evidence = { sinceMs: this.#sinceMs, everyMs: this.everyMs, rounds: this.#rounds, metrics };
    return judgeTriggers(policy, evidence, nowMs);
  }

  /** Looks until a trigger fires or every window has been watched to its end. `onLook` sees each decision. */
  async gate(signal: AbortSignal, onLook: (decision: TriggerDecision) => void = () => {}): Promise<TriggerDecision> {
    const { clock } = this.#options;
    for (;;) {
      const begunMs = clock.now();
      const decision = await this.look(signal);
      onLook(decision);
      if (decision.decision === 'fire' || decision.complete) return decision;
      await clock.sleep(Math.max(0, begunMs + this.everyMs - clock.now()), signal);
    }
  }

  async #round(signal: AbortSignal): Promise<void> {
    const { checks, probes, clock } = this.#options;
    if (checks.length === 0) return;
    const atMs = clock.now();
    const answers = await Promise.all(
      checks.map(async ({ url, status, contains }) => {
        const probe = await probes.http(url, signal);
        return { ok: probe.status === status && probe.body.includes(contains ?? ''), ms: probe.ms };
      }),
    );
    this.#rounds.push({ atMs, answers });
  }

  async #metric(query: string | undefined, signal: AbortSignal): Promise<Metric | undefined> {
    const { policy, probes } = this.#options;
    if (policy.prometheus === undefined || query === undefined) return undefined;
    return metricOf(await probes.http(queryUrl(policy.prometheus.url, query), signal));
  }
}
