import { KubeConfig, type KubernetesObject, KubernetesObjectApi, PatchStrategy, Watch } from '@kubernetes/client-node';
import { expect, test } from 'vitest';
import { KubernetesServer } from '../harness/kubernetes/server.ts';

// The API server of the harness is ours; the client of the Kubernetes project is not, and understands it.
test('the client of the Kubernetes project works with the API server of the harness', async () => {
  await using server = await KubernetesServer.start({ tls: true });
  const config = new KubeConfig();
  config.loadFromString(server.kubeconfig());
  const client = KubernetesObjectApi.makeApiClient(config);
  const spec = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'orders', namespace: 'default' } };
  const seen: string[] = [];
  let enough = () => {};
  const three = new Promise<void>((resolve) => {
    enough = resolve;
  });
  const watch = await new Watch(config).watch(
    '/api/v1/namespaces/default/configmaps',
    { allowWatchBookmarks: true, resourceVersion: '1' },
    (phase: string, object: KubernetesObject) => {
      seen.push(`${phase} ${object.metadata?.name ?? ''}`.trim());
      if (seen.length === 4) enough();
    },
    () => {},
  );
  const made = await client.create({ ...spec, data: { a: '1' } } as KubernetesObject);
  expect(made.metadata).toMatchObject({ name: 'orders', uid: expect.any(String) });
  const applied = await client.patch(
    { ...spec, data: { a: '2' } } as KubernetesObject,
    undefined,
    undefined,
    'somebody',
    true,
    PatchStrategy.ServerSideApply,
  );
  expect(applied).toMatchObject({ data: { a: '2' } });
  const list = await client.list('v1', 'ConfigMap', 'default');
  expect(list.items.map(({ metadata }) => metadata?.name)).toEqual(['orders']);
  await expect(client.create(spec)).rejects.toMatchObject({ code: 409 });
  expect(await client.delete(spec)).toMatchObject({ status: 'Success' });
  await expect(client.read(spec)).rejects.toMatchObject({ code: 404 });
  server.objects.history.bookmark();
  await three;
  watch.abort();
  expect(seen).toEqual(['ADDED orders', 'MODIFIED orders', 'DELETED orders', 'BOOKMARK']);
});
