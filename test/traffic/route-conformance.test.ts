import { silentLog } from '../../src/base/log.ts';
import { KubernetesCluster } from '../../src/cluster/kubernetes.ts';
import { MemoryCluster } from '../../src/cluster/memory/cluster.ts';
import { MemoryObjects } from '../../src/cluster/memory/objects.ts';
import { RouteTraffic } from '../../src/traffic/route-traffic.ts';
import { settingsFor } from '../cluster/support.ts';
import { trafficConformance } from '../conformance/traffic.ts';
import { KubernetesServer } from '../harness/kubernetes/server.ts';
import { backends, GatewayController, httpRoute, routeConfig, seedRoutes, virtualService } from './routes.ts';
import { hastyClock } from './support.ts';

const facts = {
  hasNameServers: true,
  hasResolver: false,
  isFaithful: true,
  isPremade: true,
  sites: Object.values(backends),
};

trafficConformance('HTTPRoute in a cluster in memory', async () => {
  const objects = new MemoryObjects();
  seedRoutes(objects, httpRoute);
  const controller = new GatewayController(objects);
  const places = { endpoints: backends, openCluster: async () => new MemoryCluster({ objects }) };
  return {
    ...facts,
    open: () => new RouteTraffic(routeConfig('httpRoute'), silentLog, { clock: hastyClock }, places),
    [Symbol.asyncDispose]: async () => controller.close(),
  };
});

for (const [kind, object] of [
  ['httpRoute', httpRoute],
  ['virtualService', virtualService],
] as const) {
  trafficConformance(`${object.kind} by an API server`, async () => {
    const server = await KubernetesServer.start();
    seedRoutes(server.objects, object);
    const controller = kind === 'httpRoute' ? new GatewayController(server.objects) : undefined;
    const openCluster = async () => new KubernetesCluster(settingsFor(server), { log: silentLog });
    const places = { endpoints: backends, openCluster };
    return {
      ...facts,
      open: () => new RouteTraffic(routeConfig(kind), silentLog, { clock: hastyClock }, places),
      [Symbol.asyncDispose]: async () => {
        controller?.close();
        await server[Symbol.asyncDispose]();
      },
    };
  });
}
