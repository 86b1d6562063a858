import { DrError } from '../base/errors.ts';
import type { Cluster, ClusterObject, ObjectRef } from './contract.ts';
import { isJson } from './json.ts';

export interface ClusterLeaseOptions {
  readonly namespace: string;
  readonly name: string;
  /** Who asks; of no other process, not even of an earlier one in the same pod. */
  readonly identity: string;
  /** How long a word of the holder counts, milliseconds; whole seconds. */
  readonly durationMs: number;
  /** Milliseconds on a clock that only runs forward. */
  elapsed(): number;
  /** Wall clock for what people read in the Lease, milliseconds since 1970. */
  now(): number;
}

/** Who holds the Lease. */
export interface LeaseState {
  readonly mine: boolean;
  /** Empty: nobody. */
  readonly holder: string;
  /** Grows whenever it changes hands: the fencing token, together with the identity of the object. */
  readonly generation: number;
}

interface Found extends LeaseState {
  readonly resourceVersion: string;
  readonly durationMs: number;
  /** Changes with every word of the holder. */
  readonly word: string;
}

/**
 * A Lease (coordination.k8s.io/v1) as one process of several uses it. Whether the holder has fallen silent is told by the own clock alone: since
 * when its last word has not changed, while the server could be read; after an outage the holder has the whole duration to speak again. Every
 * write insists on the version that was read, so of two processes one succeeds.
 */
export class ClusterLease {
  /** For people: `Lease dr/dr-east`. */
  readonly title: string;
  readonly identity: string;
  readonly durationMs: number;
  readonly #cluster: Cluster;
  readonly #options: ClusterLeaseOptions;
  readonly #ref: ObjectRef;
  #heard: { readonly word: string; readonly atMs: number } | undefined;
  #readMs = Number.NEGATIVE_INFINITY;

  constructor(cluster: Cluster, options: ClusterLeaseOptions) {
    this.#cluster = cluster;
    this.#options = options;
    this.identity = options.identity;
    this.durationMs = options.durationMs;
    const { namespace, name } = options;
    this.#ref = { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', namespace, name };
    this.title = `Lease ${namespace}/${name} in ${cluster.target}`;
  }

  /** Renews it where it is ours, takes it where it is free, else tells who holds it. Throws as `Cluster` does. */
  async attempt(signal: AbortSignal): Promise<LeaseState> {
    // Lost races are seen at the next reading; a holder that renews all the time is not raced.
    for (let attempt = 1; ; attempt++) {
      const found = await this.#read(signal);
      if (found && !found.mine && !this.#isFree(found)) return found;
      try {
        return found ? await this.#write(found, found.mine, signal) : await this.#create(signal);
      } catch (error) {
        if (!(error instanceof DrError && error.kind === 'conflict') || attempt === 3) throw error;
      }
    }
  }

  /** Who holds it, without a try to take it. */
  async look(signal: AbortSignal): Promise<LeaseState | undefined> {
    return await this.#read(signal);
  }

  /** Gives it back, so that another one takes it at once. Does nothing where it is not ours. */
  async release(signal: AbortSignal): Promise<void> {
    const found = await this.#read(signal);
    if (!found?.mine) return;
    const spec = { holderIdentity: '', leaseDurationSeconds: 1, renewTime: this.#time() };
    await this.#cluster.merge(this.#ref, { metadata: { resourceVersion: found.resourceVersion }, spec }, {}, signal);
  }

  async #read(signal: AbortSignal): Promise<Found | undefined> {
    let object: ClusterObject;
    try {
      object = await this.#cluster.get(this.#ref, signal);
    } catch (error) {
      if (!(error instanceof DrError && error.kind === 'not-found')) throw error;
      this.#heard = undefined;
      return undefined;
    }
    const found = this.#found(object);
    const { elapsed, durationMs } = this.#options;
    const nowMs = elapsed();
    const wasDeaf = nowMs - this.#readMs > durationMs / 2;
    this.#readMs = nowMs;
    if (wasDeaf || found.word !== this.#heard?.word) this.#heard = { word: found.word, atMs: nowMs };
    return found;
  }

  #found({ metadata, spec }: ClusterObject): Found {
    const { holderIdentity, leaseDurationSeconds, leaseTransitions, renewTime } = isJson(spec) ? spec : {};
    const holder = typeof holderIdentity === 'string' ? holderIdentity : '';
    const generation = Number(leaseTransitions ?? 0);
    return {
      mine: holder === this.#options.identity,
      holder,
      generation,
      resourceVersion: metadata.resourceVersion ?? '',
      durationMs: Number(leaseDurationSeconds ?? 0) * 1000,
      word: `${metadata.uid} ${holder} ${generation} ${String(renewTime)}`,
    };
  }

  #isFree({ holder, durationMs }: Found): boolean {
    if (holder === '') return true;
    return this.#heard !== undefined && this.#options.elapsed() - this.#heard.atMs > durationMs;
  }

  async #create(signal: AbortSignal): Promise<LeaseState> {
    const { apiVersion, kind, namespace = '', name } = this.#ref;
    const time = this.#time();
    const spec = { ...this.#holding(time), acquireTime: time, leaseTransitions: 1 };
    return this.#found(
      await this.#cluster.create({ apiVersion, kind, metadata: { namespace, name }, spec }, {}, signal),
    );
  }

  async #write(found: Found, renews: boolean, signal: AbortSignal): Promise<LeaseState> {
    const time = this.#time();
    const taken = renews ? {} : { acquireTime: time, leaseTransitions: found.generation + 1 };
    const change = {
      metadata: { resourceVersion: found.resourceVersion },
      spec: { ...this.#holding(time), ...taken },
    };
    return this.#found(await this.#cluster.merge(this.#ref, change, {}, signal));
  }

  #holding(renewTime: string) {
    const { identity, durationMs } = this.#options;
    return { holderIdentity: identity, leaseDurationSeconds: Math.round(durationMs / 1000), renewTime };
  }

  /** As the server writes these times: with microseconds. */
  #time(): string {
    return new Date(this.#options.now()).toISOString().replace('Z', '000Z');
  }
}
