import { silentLog } from '../../src/base/log.ts';
import type { Access, ObjectType } from '../../src/cluster/contract.ts';
import { KubernetesCluster } from '../../src/cluster/kubernetes.ts';
import { MemoryCluster } from '../../src/cluster/memory/cluster.ts';
import { MemoryObjects } from '../../src/cluster/memory/objects.ts';
import { clusterConformance } from '../conformance/cluster.ts';
import { isAllowed, type Rule } from '../harness/kubernetes/rbac.ts';
import { KubernetesServer } from '../harness/kubernetes/server.ts';
import { settingsFor } from './support.ts';

const namespace = 'shop';

function withNamespace(objects: MemoryObjects): MemoryObjects {
  objects.create({ apiVersion: 'v1', kind: 'Namespace', metadata: { name: namespace } }, undefined);
  return objects;
}

clusterConformance('memory', async () => {
  const objects = withNamespace(new MemoryObjects());
  const allows =
    (rules: readonly Rule[]) =>
    (access: Access, { group, plural }: ObjectType) => {
      const resource = access.subresource === undefined ? plural : `${plural}/${access.subresource}`;
      return isAllowed(rules, { ...access, group, resource });
    };
  return {
    open: () => new MemoryCluster({ objects }),
    openAs: async (rules) => new MemoryCluster({ objects, allows: allows(rules) }),
    namespace,
    forget: () => objects.history.forget(),
    bookmark: () => objects.history.bookmark(),
    [Symbol.asyncDispose]: async () => {},
  };
});

for (const options of [{}, { tls: true, plainDiscovery: true }]) {
  const form = options.tls ? 'https, discovery of old servers' : 'http';
  clusterConformance(`an API server of the harness, ${form}`, async () => {
    const server = await KubernetesServer.start(options);
    withNamespace(server.objects);
    return {
      open: () => new KubernetesCluster(settingsFor(server), { log: silentLog }),
      openAs: async (rules) => {
        const token = `token-${server.accounts.size}-of-somebody`;
        server.accounts.set(token, { name: `somebody-${server.accounts.size}`, rules });
        return new KubernetesCluster(settingsFor(server, { token }), { log: silentLog });
      },
      namespace,
      forget: () => server.objects.history.forget(),
      bookmark: () => server.objects.history.bookmark(),
      [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
    };
  });
}
