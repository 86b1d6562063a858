import { afterEach, beforeEach } from 'vitest';
import type { Cluster, ClusterObject, ObjectRef, WatchEvent } from '../../src/cluster/contract.ts';
import type { Rule } from '../harness/kubernetes/rbac.ts';

/** One cluster with a namespace of its own to write to. */
export interface ClusterFixture extends AsyncDisposable {
  /** A new client that may do everything in the namespace, and read the whole cluster. */
  open(): Cluster;
  /** A client that may do only this. */
  openAs(rules: readonly Rule[]): Promise<Cluster>;
  readonly namespace: string;
  /** Lets the server forget all past versions; absent where it is not ours. */
  readonly forget?: () => void;
  /** Lets the server send a bookmark to every watch; absent where it does so by itself, about every minute. */
  readonly bookmark?: () => void;
}

/** What the tests of a suite share. */
export interface Trial {
  readonly fixture: ClusterFixture;
  readonly cluster: Cluster;
  /** Another client. */
  readonly rival: Cluster;
  /** A client that may do only this. */
  as(...rules: readonly Rule[]): Promise<Cluster>;
  /** A ConfigMap in the namespace of the fixture. */
  settings(name: string, data?: Record<string, string>, labels?: Record<string, string>): ClusterObject;
  ref(name: string): ObjectRef;
}

export const configMaps = { apiVersion: 'v1', kind: 'ConfigMap' };

/** Begins each test of the suite with a new fixture, and cleans up after it; gives what the present test works with. */
export function trials(start: () => Promise<ClusterFixture>): () => Trial {
  let trial: Trial | undefined;
  const clients: Cluster[] = [];
  beforeEach(async () => {
    const fixture = await start();
    const [cluster, rival] = [fixture.open(), fixture.open()];
    clients.push(cluster, rival);
    const { namespace } = fixture;
    trial = {
      fixture,
      cluster,
      rival,
      as: async (...rules) => {
        const client = await fixture.openAs(rules);
        clients.push(client);
        return client;
      },
      // No empty map: the API server keeps none, and takes one that is applied for a change of all of it.
      settings: (name, data = { a: '1' }, labels = undefined) => ({
        ...configMaps,
        metadata: { name, namespace, ...(labels && { labels }) },
        data,
      }),
      ref: (name) => ({ ...configMaps, namespace, name }),
    };
  });
  afterEach(async () => {
    for (const client of clients.splice(0)) client.close();
    await trial?.fixture[Symbol.asyncDispose]();
    trial = undefined;
  });
  return () => {
    if (trial === undefined) throw new Error('no test is running');
    return trial;
  };
}

export const failure = (work: Promise<unknown>) => work.then(() => undefined).catch((error: unknown) => error);

export async function next(events: AsyncIterable<WatchEvent>): Promise<WatchEvent | undefined> {
  for await (const event of events) return event;
  return undefined;
}
