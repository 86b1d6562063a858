import { writeFileSync } from 'node:fs';
import { KubernetesServer } from './server.ts';

// The API server of the harness for trying things out: `node test/harness/kubernetes/main.ts KUBECONFIG` writes a kubeconfig
// there and serves until it is stopped.
const [path] = process.argv.slice(2);
if (path === undefined) throw new Error('say where the kubeconfig is to be written');
const server = await KubernetesServer.start({ tls: true });
writeFileSync(path, server.kubeconfig(), { mode: 0o600 });
process.stdout.write(`${server.url}, kubeconfig ${path}\n`);
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => void server[Symbol.asyncDispose]());
