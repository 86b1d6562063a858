import { DrError } from '../../src/base/errors.ts';
import type { Cluster } from '../../src/cluster/contract.ts';
import { showRef } from '../../src/cluster/contract.ts';
import { MemoryCluster } from '../../src/cluster/memory/cluster.ts';
import { MemoryObjects } from '../../src/cluster/memory/objects.ts';
import type { FastClock, Mortal } from './world.ts';

const writes = new Set(['create', 'apply', 'merge', 'delete', 'setScale']);

/** The clusters of the sites in memory: what they hold survives the deaths of the processes that work with them. */
export class MemoryClusters {
  readonly sites: ReadonlyMap<string, MemoryObjects>;
  /** Writes of dr, as `east merge Deployment shop/api`. */
  readonly effects: string[] = [];
  /** Sites whose API server does not answer. */
  readonly dead = new Set<string>();
  /** Sites whose API server does not know who asks: the token has expired. */
  readonly locked = new Set<string>();
  readonly #clock: FastClock;

  constructor(clock: FastClock, sites: readonly string[] = ['east', 'west']) {
    this.#clock = clock;
    this.sites = new Map(sites.map((site) => [site, new MemoryObjects(clock)]));
  }

  objects(site: string): MemoryObjects {
    const objects = this.sites.get(site);
    if (objects === undefined) throw new Error(`no cluster at ${site}`);
    return objects;
  }

  /** A site's cluster as one mortal process sees it. */
  seenBy(mortal: Mortal, site: string): Cluster {
    const cluster = new MemoryCluster({ objects: this.objects(site), clock: this.#clock });
    const { dead, locked, effects } = this;
    return new Proxy(cluster, {
      get(target, name) {
        const member: unknown = Reflect.get(target, name);
        if (typeof member !== 'function' || typeof name !== 'string') return member;
        if (name === 'watch' || name === 'close') return member.bind(target);
        return async (...parameters: unknown[]) => {
          if (dead.has(site))
            throw new DrError('unreachable', 'the API server does not answer', { where: target.target, next: 'x' });
          const isDry = parameters.some((each) => (each as { dryRun?: boolean } | undefined)?.dryRun === true);
          if (locked.has(site)) throw new DrError('refused', 'Unauthorized', { where: target.target, next: 'x' });
          if (!writes.has(name) || isDry) {
            mortal.alive();
            return await member.apply(target, parameters);
          }
          const [about] = parameters as [
            Parameters<typeof showRef>[0] & { metadata?: { name: string; namespace?: string } },
          ];
          const what = `${site} ${name} ${showRef({ ...about, ...about.metadata })}`;
          mortal.point(`before ${what}`);
          const result: unknown = await member.apply(target, parameters);
          effects.push(what);
          mortal.point(`after ${what}`);
          return result;
        };
      },
    });
  }
}
