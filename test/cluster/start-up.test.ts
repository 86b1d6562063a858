import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { KubernetesServer } from '../harness/kubernetes/server.ts';
import { nodeBinary, startProcess } from '../harness/process.ts';
import { tempDir } from '../harness/temp.ts';
import { httpRoute, seedRoutes } from '../traffic/routes.ts';

/** Runs dr and gives the modules that it loaded, as URLs. */
async function loadedBy(
  folder: string,
  configuration: string,
  ...args: string[]
): Promise<{ loaded: string; output: string }> {
  const list = join(folder, 'loaded');
  const hook = `import { registerHooks } from 'node:module'; import { appendFileSync } from 'node:fs';
    registerHooks({ load(url, context, next) { appendFileSync(${JSON.stringify(list)}, url + '\\n'); return next(url, context); } });`;
  writeFileSync(list, '');
  const config = join(folder, 'dr.yaml');
  writeFileSync(config, configuration);
  const command = [
    '--import',
    `data:text/javascript,${encodeURIComponent(hook)}`,
    'src/main.ts',
    '--config',
    config,
    ...args,
  ];
  const env = { ...process.env, KUBECONFIG: join(folder, 'kubeconfig') };
  const { stdout, stderr } = await startProcess(nodeBinary, command, { env }).ended;
  const output = stdout + stderr;
  return { loaded: readFileSync(list, 'utf8'), output };
}

// 90 MB and a second of start-up would be paid by everybody for what few need (docs/decisions/0009).
test('dr without a cluster loads neither client-node nor the cluster adapter; a route loads the adapter alone', async () => {
  await using server = await KubernetesServer.start();
  seedRoutes(server.objects, httpRoute);
  const folder = await tempDir();
  writeFileSync(join(folder, 'kubeconfig'), server.kubeconfig());
  for (const name of ['east', 'west', 'data']) mkdirSync(join(folder, name));
  writeFileSync(join(folder, 'data', 'file'), 'content');
  const configuration = (traffic: string) => `
version: 1
encryption: none
active: east
sites:
  east: { region: eu-west-1, vault: east }
  west: { region: eu-central-1, vault: west }
vaults:
  east: { url: "file://${folder}/east", region: eu-west-1 }
  west: { url: "file://${folder}/west", region: eu-central-1 }
data:
  files: { path: "${folder}/data" }
traffic:
  orders:
    ${traffic}
`;
  const dns =
    'rfc2136: { server: "127.0.0.1:1", zone: example.com, record: orders.example.com, key: { name: dr, secret: "bmV2ZXItdG9sZC1uZXZlci10b2xkLTE3Mjk=" } }\n    endpoints: { east: 192.0.2.10, west: 198.51.100.10 }';
  for (const verb of ['status', 'doctor']) {
    const { loaded, output } = await loadedBy(folder, configuration(dns), verb);
    expect(output).toContain('files');
    expect(loaded).toContain(`/src/commands/${verb}.ts`);
    // Its words (types, errors, names of annotations) weigh nothing; drivers and what signs in do.
    expect(loaded).not.toMatch(/@kubernetes|src\/cluster\/(?!(open|contract|errors|json|parked|jobs)\.ts)/);
  }
  const route =
    'httpRoute: { namespace: shop, name: orders, rule: all }\n    endpoints: { east: orders-east, west: orders-west }';
  const doctor = await loadedBy(folder, configuration(route), 'doctor');
  expect(doctor.output).toContain('HTTPRoute shop/orders points to orders-east');
  expect(doctor.loaded).toContain('/src/cluster/kubernetes.ts');
  expect(doctor.loaded).not.toContain('@kubernetes');
});
