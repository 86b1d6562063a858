import { type Clock, systemClock } from '../base/clock.ts';
import { DrError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { RouteConfig } from '../config/types.ts';
import type {
  LastWritten,
  ResolverAnswer,
  TrafficAnswer,
  TrafficChange,
  TrafficDriver,
  TrafficFinding,
  TrafficSplit,
  TrafficState,
} from './contract.ts';
import { httpRouteForm } from './httproute.ts';
import { digestOf } from './record.ts';
import { routeDoctor } from './route-doctor.ts';
import { type Backend, backendsOf, type RouteForm, ruleOf, withWeights } from './route-form.ts';
import type { OpenRouteCluster, RouteCluster, RouteObject, RouteRef } from './route-objects.ts';
import { divides, routeConflict, sharesOf, weightsFor } from './route-weights.ts';
import { unchanged, waitUntilVisible } from './settle.ts';
import { virtualServiceForm } from './virtual-service.ts';

/** What tests and unusual clusters set. */
export interface RouteTuning {
  readonly clock?: Clock;
  /** Longest wait for gateways to take a change when the caller gives no deadline, milliseconds; default 2 minutes. */
  readonly settleTimeoutMs?: number;
}

/** How often a change is tried again because something else of the route changed in between (its status does). */
const rounds = 8;

/** The route and the rule that is meant, as they were at one moment. */
interface Look {
  readonly object: RouteObject;
  readonly index: number;
  readonly backends: readonly Backend[];
  readonly state: TrafficState;
}

/**
 * Divides traffic by the weights of one rule of a route in a cluster. A change insists on the version of the object whose weights
 * were looked at, and writes nothing but weights of that rule; other rules stay as they are. Weights are never all zero.
 */
export class RouteTraffic implements TrafficDriver {
  readonly kind: RouteConfig['kind'];
  readonly shifting = 'gradual';
  readonly target: string;
  readonly #config: RouteConfig;
  readonly #form: RouteForm;
  readonly #endpoints: Readonly<Record<string, string>>;
  readonly #openCluster: OpenRouteCluster;
  readonly #log: Log;
  readonly #clock: Clock;
  readonly #tuning: RouteTuning;
  readonly #ref: RouteRef;
  #cluster: Promise<RouteCluster> | undefined;

  constructor(
    config: RouteConfig,
    log: Log,
    tuning: RouteTuning,
    places: { readonly endpoints: Readonly<Record<string, string>>; readonly openCluster: OpenRouteCluster },
  ) {
    const { kind, namespace, name, rule, cluster } = config;
    this.kind = kind;
    this.#config = config;
    this.#form = kind === 'httpRoute' ? httpRouteForm : virtualServiceForm;
    this.#endpoints = places.endpoints;
    this.#openCluster = places.openCluster;
    this.#tuning = tuning;
    this.#clock = tuning.clock ?? systemClock;
    const { objectKind, apiVersion } = this.#form;
    this.#ref = { apiVersion, kind: objectKind, namespace, name };
    const context = cluster.context === undefined ? '' : ` in cluster context ${cluster.context}`;
    this.target = `${objectKind} ${namespace}/${name}${rule === undefined ? '' : ` rule ${rule}`}${context}`;
    this.#log = log.child({ traffic: this.target });
  }

  async current(signal?: AbortSignal): Promise<TrafficState> {
    return (await this.#look(signal)).state;
  }

  async point(values: readonly string[], replaces: TrafficState, signal?: AbortSignal): Promise<TrafficChange> {
    if (values.length === 0) {
      throw new DrError('refused', 'a route without any weight answers no client', {
        where: this.target,
        next: 'Give the site a backend under endpoints of this traffic entry.',
      });
    }
    return await this.#change(new Map(values.map((value) => [value, 100])), replaces, signal);
  }

  async shift(split: TrafficSplit, replaces: TrafficState, signal?: AbortSignal): Promise<TrafficChange> {
    return await this.#change(weightsFor(split, this.target), replaces, signal);
  }

  async settled(change: TrafficChange, signal?: AbortSignal): Promise<void> {
    let isSaid = false;
    const look = async () => {
      const { object } = await this.#look(signal);
      const all = this.#form.acceptance(object);
      isSaid = all.length > 0;
      const lacking = all.flatMap(({ by, lacks }) => (lacks === undefined ? [] : [`${by}: ${lacks}`]));
      return lacking.length === 0 ? undefined : lacking.join('; ');
    };
    await waitUntilVisible(look, {
      what: change.id === unchanged ? 'the route as it is' : `the change to ${change.id}`,
      on: 'all gateways',
      target: this.target,
      next: `Look at the status of the ${this.#form.objectKind} and the log of the gateway controller; run the command again to go on waiting.`,
      clock: this.#clock,
      limitMs: this.#tuning.settleTimeoutMs ?? 120_000,
      signal,
    });
    if (!isSaid) this.#log.debug({}, 'nothing in the cluster tells whether the route is carried out');
  }

  /** What each gateway that tells has taken; the object alone where none tells. */
  async answers(signal?: AbortSignal): Promise<readonly TrafficAnswer[]> {
    const { object, state } = await this.#look(signal);
    const all = this.#form.acceptance(object);
    if (all.length === 0) return [{ server: state.name, values: state.values }];
    return all.map(({ by, lacks }): TrafficAnswer => {
      return lacks === undefined ? { server: by, values: state.values } : { server: by, values: [], error: lacks };
    });
  }

  /** No resolver knows of weights. */
  async resolved(): Promise<readonly ResolverAnswer[]> {
    return [];
  }

  async doctor(signal?: AbortSignal, wrote?: LastWritten): Promise<readonly TrafficFinding[]> {
    const { form, ref } = { form: this.#form, ref: this.#ref };
    return await routeDoctor({
      form,
      ref,
      endpoints: this.#endpoints,
      wrote,
      look: () => this.#look(signal),
      tryOut: async ({ object }) => {
        const cluster = await this.#open();
        const metadata = { resourceVersion: object.metadata.resourceVersion };
        await cluster.merge(ref, { metadata }, { dryRun: true }, signal);
      },
    });
  }

  close(): void {
    void this.#cluster?.then(
      (cluster) => cluster.close(),
      () => {},
    );
  }

  /** Writes these weights, all others zero, in place of the state `replaces`. */
  async #change(
    weights: ReadonlyMap<string, number>,
    replaces: TrafficState,
    signal: AbortSignal | undefined,
  ): Promise<TrafficChange> {
    this.#refuseUnknown([...weights.keys()]);
    for (let round = 1; ; round++) {
      const found = await this.#look(signal);
      this.#refuseMissing(found, weights);
      if (divides(found.backends, weights)) {
        this.#log.info({ values: found.state.values }, 'the weights are so already: nothing was written');
        return { id: unchanged, submittedAtMs: this.#clock.now() };
      }
      if (found.state.generation !== replaces.generation) throw routeConflict(this.target, replaces, found.state);
      const submittedAtMs = this.#clock.now();
      try {
        const after = await this.#write(found, weights, signal);
        const { generation } = after.metadata;
        this.#log.info({ from: found.state.shares, generation }, 'the weights of the route were changed');
        return { id: `generation ${generation ?? 'unknown'}`, submittedAtMs };
      } catch (error) {
        // Another version need not mean other weights: gateways write the status of the same object.
        if (!(error instanceof DrError) || error.kind !== 'conflict' || round >= rounds) throw error;
      }
    }
  }

  async #write(
    { object, index }: Look,
    weights: ReadonlyMap<string, number>,
    signal: AbortSignal | undefined,
  ): Promise<RouteObject> {
    const { field } = this.#form;
    const spec = { [field]: withWeights(this.#form, object, index, weights) };
    const metadata = { resourceVersion: object.metadata.resourceVersion };
    return await (await this.#open()).merge(this.#ref, { metadata, spec }, {}, signal);
  }

  async #look(signal: AbortSignal | undefined): Promise<Look> {
    if (signal?.aborted) {
      const cause = signal.reason;
      throw new DrError('interrupted', 'the work on the route was stopped', { where: this.target, cause });
    }
    const object = await (await this.#open()).get(this.#ref, signal);
    const index = ruleOf(this.#form, object, this.#config.rule, this.target);
    const backends = backendsOf(this.#form, object, index, this.target);
    const shares = sharesOf(backends);
    const state: TrafficState = {
      name: `${this.#form.objectKind} ${this.#ref.namespace}/${this.#ref.name}`,
      values: shares.filter(({ percent }) => percent > 0).map(({ value }) => value),
      ttlSeconds: 0,
      generation: digestOf([this.#form.objectKind, shares]),
      shares,
    };
    return { object, index, backends, state };
  }

  #refuseUnknown(names: readonly string[]): void {
    const known = Object.values(this.#endpoints);
    const foreign = names.find((name) => !known.includes(name));
    if (foreign === undefined) return;
    throw new DrError('refused', `${JSON.stringify(foreign)} is the backend of no site`, {
      where: this.target,
      next: `Add it to the endpoints of this traffic entry; known are ${known.join(', ')}.`,
    });
  }

  #refuseMissing({ backends }: Look, weights: ReadonlyMap<string, number>): void {
    const missing = [...weights].find(([name, weight]) => weight > 0 && !backends.some((each) => each.name === name));
    if (missing === undefined) return;
    throw new DrError('refused', `the rule has no backend ${missing[0]}, and dr cannot know its port`, {
      where: this.target,
      next: 'Add it to the rule with weight 0, or correct the endpoints of this traffic entry.',
    });
  }

  async #open(): Promise<RouteCluster> {
    this.#cluster ??= this.#openCluster(this.#config.cluster);
    try {
      return await this.#cluster;
    } catch (error) {
      this.#cluster = undefined;
      throw error;
    }
  }
}
