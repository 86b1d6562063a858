/** What a name points to, as one traffic driver sees it. */
export interface TrafficState {
  /** The record or route: `orders.example.com A`. */
  readonly name: string;
  /** Values now published, sorted; empty when there is no record. */
  readonly values: readonly string[];
  /** Seconds that resolvers may keep the old answer. */
  readonly ttlSeconds: number;
  /** Changes whenever the published state changes: what a change checks that it replaces. */
  readonly generation: string;
}

/** A change that has been accepted and may not be visible everywhere yet. */
export interface TrafficChange {
  readonly id: string;
  readonly submittedAtMs: number;
}

export interface TrafficFinding {
  readonly ok: boolean;
  readonly what: string;
  readonly next?: string;
  /** Of one that is not ok: `warning` when a redirect works all the same, only later or seen less well. Default: `error`. */
  readonly severity?: 'error' | 'warning';
}

/**
 * Redirects one name. Errors are `DrError`: `unreachable`, `denied`, `not-found` (no such zone), `conflict` (the state is no
 * longer the one that `replaces` names: somebody else wrote), `refused` (an empty value).
 */
export interface TrafficDriver {
  readonly kind: 'route53' | 'memory';
  /** What it acts on, for plans: `route53 zone Z123 record orders.example.com A`. */
  readonly target: string;
  current(signal?: AbortSignal): Promise<TrafficState>;
  /** Publishes `values` in place of the state `replaces`. Publishing what is there already is a success. */
  point(values: readonly string[], replaces: TrafficState, signal?: AbortSignal): Promise<TrafficChange>;
  /**
   * Resolves once the provider says that the change has reached all of its servers (Route 53: INSYNC). For a `point` that found its
   * values there already, waits until the name servers answer them. The deadline is the signal's: `unreachable` (retryable) when it
   * timed out, `interrupted` when the caller stopped.
   */
  settled(change: TrafficChange, signal?: AbortSignal): Promise<void>;
  /** What each authoritative server answers now, by server; a server that does not answer is reported with its error. */
  answers(signal?: AbortSignal): Promise<ReadonlyArray<{ server: string; values: readonly string[]; error?: string }>>;
  /** Asks for what the driver will need (permission, zone, record, TTL) without changing anything; lists what is wrong. */
  doctor(signal?: AbortSignal): Promise<readonly TrafficFinding[]>;
  close(): void;
}
