/** What a name points to, as one traffic driver sees it. */
export interface TrafficState {
  /** The record or route: `orders.example.com A`. */
  readonly name: string;
  /** Values that get traffic now, sorted; empty when there is no record. */
  readonly values: readonly string[];
  /** Seconds that resolvers may keep the old answer. */
  readonly ttlSeconds: number;
  /** Changes whenever the published state changes: what a change checks that it replaces. */
  readonly generation: string;
  /** Of a driver that shifts gradually: every value that it knows, with its share. */
  readonly shares?: readonly TrafficShare[];
}

/** How much of the traffic one value gets. */
export interface TrafficShare {
  readonly value: string;
  /** 0 to 100; all shares of a state together make 100. */
  readonly percent: number;
}

/** A division of the traffic between two sites. */
export interface TrafficSplit {
  /** Endpoint of the site that traffic leaves. */
  readonly from: string;
  /** Endpoint of the site that traffic goes to. */
  readonly to: string;
  /** Whole percent that `to` gets, 0 to 100; `from` gets the rest and any other value nothing. */
  readonly percent: number;
}

/** A change that has been accepted and may not be visible everywhere yet. */
export interface TrafficChange {
  readonly id: string;
  readonly submittedAtMs: number;
}

/** What one name server or resolver answers. */
export interface TrafficAnswer {
  readonly server: string;
  /** Sorted; empty when there is no such record, and when it does not answer. */
  readonly values: readonly string[];
  /** Why there is no usable answer. */
  readonly error?: string;
}

/** What one recursive resolver answers. */
export interface ResolverAnswer extends TrafficAnswer {
  /** How long it goes on giving this answer, seconds. */
  readonly ttlSeconds?: number;
}

export interface TrafficFinding {
  readonly ok: boolean;
  readonly what: string;
  readonly next?: string;
  /** Of one that is not ok: `warning` when a redirect works all the same, only later or seen less well. Default: `error`. */
  readonly severity?: 'error' | 'warning';
}

/** What dr itself published last, as its newest run recorded it: whoever changed it since is another writer. */
export interface LastWritten {
  readonly values: readonly string[];
  /** Milliseconds since 1970. */
  readonly atMs: number;
  /** Who wrote, for people: `run 20260101T…`. */
  readonly by: string;
}

/**
 * Redirects one name. Errors are `DrError`: `unreachable`, `denied`, `not-found` (no such zone), `conflict` (the state is no
 * longer the one that `replaces` names: somebody else wrote), `refused` (an empty value, a share that the driver cannot give).
 */
export interface TrafficDriver {
  readonly kind: 'route53' | 'rfc2136' | 'health' | 'httpRoute' | 'virtualService' | 'memory';
  /** What it acts on, for plans: `route53 zone Z123 record orders.example.com A`. */
  readonly target: string;
  /** `gradual`: `shift` takes every percentage. `whole`: the name has one answer for all, so it can only be switched. */
  readonly shifting: 'gradual' | 'whole';
  current(signal?: AbortSignal): Promise<TrafficState>;
  /** Publishes `values` in place of the state `replaces`. Publishing what is there already is a success. */
  point(values: readonly string[], replaces: TrafficState, signal?: AbortSignal): Promise<TrafficChange>;
  /**
   * Divides the traffic in place of the state `replaces`; dividing it as it is already is a success. A driver that shifts
   * as a whole takes 0 and 100 percent and refuses what lies between.
   */
  shift(split: TrafficSplit, replaces: TrafficState, signal?: AbortSignal): Promise<TrafficChange>;
  /**
   * Resolves once the provider says that the change has reached all of its servers (Route 53: INSYNC), or, where no provider
   * tells, once every server that answers gives the new values. For a `point` that found its
   * values there already, waits until the name servers answer them. The deadline is the signal's: `unreachable` (retryable) when it
   * timed out, `interrupted` when the caller stopped.
   */
  settled(change: TrafficChange, signal?: AbortSignal): Promise<void>;
  /** What each authoritative server answers now, by server; a server that does not answer is reported with its error. */
  answers(signal?: AbortSignal): Promise<readonly TrafficAnswer[]>;
  /** What recursive resolvers answer now: what clients get. Empty for a driver whose clients ask no DNS. */
  resolved(signal?: AbortSignal): Promise<readonly ResolverAnswer[]>;
  /**
   * Asks for what the driver will need (permission, zone, record, TTL) without changing anything; lists what is wrong.
   * With `wrote`, also whether somebody else has changed the name since.
   */
  doctor(signal?: AbortSignal, wrote?: LastWritten): Promise<readonly TrafficFinding[]>;
  close(): void;
}
