import { accessSync, readFileSync } from 'node:fs';
import { delimiter, dirname, isAbsolute, join } from 'node:path';
import { parse } from 'yaml';
import { z } from 'zod';
import { DrError, fileError, messageOf } from '../base/errors.ts';
import { registerSecret } from '../base/redact.ts';
import type { ClusterSettings, UserSettings } from './settings.ts';

/** Where a pod finds what it needs to talk to its own cluster. */
const accountFolder = '/var/run/secrets/kubernetes.io/serviceaccount';

export interface KubeconfigOptions {
  /** Path of one kubeconfig; default: `KUBECONFIG`, then `~/.kube/config`, then the service account of the pod. */
  readonly kubeconfig?: string | undefined;
  /** Default: the current context of the kubeconfig. */
  readonly context?: string | undefined;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Another place of the service account, for tests. */
  readonly accountFolder?: string;
}

const text = z.string().min(1);
const clusterShape = z.looseObject({
  server: z.url({ protocol: /^https?$/ }),
  'certificate-authority': text.optional(),
  'certificate-authority-data': text.optional(),
  'insecure-skip-tls-verify': z.boolean().optional(),
  'tls-server-name': text.optional(),
  'proxy-url': text.optional(),
});
const userShape = z.looseObject({
  token: text.optional(),
  tokenFile: text.optional(),
  'client-certificate': text.optional(),
  'client-certificate-data': text.optional(),
  'client-key': text.optional(),
  'client-key-data': text.optional(),
  username: text.optional(),
  password: text.optional(),
  as: text.optional(),
  exec: z.looseObject({ command: text }).optional(),
  'auth-provider': z.looseObject({ name: text }).optional(),
});
const contextShape = z.looseObject({ cluster: text, user: text.optional(), namespace: text.optional() });
const fileShape = z.looseObject({
  clusters: z.array(z.looseObject({ name: text, cluster: clusterShape })).nullish(),
  users: z.array(z.looseObject({ name: text, user: userShape.nullish() })).nullish(),
  contexts: z.array(z.looseObject({ name: text, context: contextShape })).nullish(),
  'current-context': z.string().nullish(),
});

/** What all files together say: of two entries with one name the first counts, as for kubectl. */
interface Merged {
  readonly paths: readonly string[];
  readonly clusters: Map<string, { value: z.infer<typeof clusterShape>; folder: string }>;
  readonly users: Map<string, { value: z.infer<typeof userShape>; folder: string }>;
  readonly contexts: Map<string, z.infer<typeof contextShape>>;
  current: string | undefined;
}

/** Finds out which cluster is meant and how to talk to it. Nothing is connected. */
export function loadSettings(options: KubeconfigOptions): ClusterSettings {
  const { env, context } = options;
  const folder = options.accountFolder ?? accountFolder;
  const paths = options.kubeconfig === undefined ? defaultPaths(env) : [options.kubeconfig];
  if (paths.length > 0) return settingsOf(mergeFiles(paths), context);
  if (env['KUBERNETES_SERVICE_HOST'] && exists(join(folder, 'token'))) return ofServiceAccount(env, folder);
  throw new DrError('config', 'nothing says which cluster to talk to', {
    where: 'KUBECONFIG, ~/.kube/config, the service account of the pod',
    next: 'Name a kubeconfig in the configuration of dr or in KUBECONFIG, or run dr in the cluster with a service account.',
  });
}

function defaultPaths(env: KubeconfigOptions['env']): string[] {
  const named = (env['KUBECONFIG'] ?? '').split(delimiter).filter((path) => path !== '');
  if (named.length > 0) return named;
  const home = env['HOME'] ? join(env['HOME'], '.kube', 'config') : '';
  return home !== '' && exists(home) ? [home] : [];
}

function ofServiceAccount(env: KubeconfigOptions['env'], folder: string): ClusterSettings {
  const host = env['KUBERNETES_SERVICE_HOST'] ?? '';
  const port = env['KUBERNETES_SERVICE_PORT'] ?? '443';
  return {
    server: `https://${host.includes(':') ? `[${host}]` : host}:${port}`,
    origin: 'service account of the pod',
    caFile: join(folder, 'ca.crt'),
    insecure: false,
    user: { name: 'service account', tokenFile: join(folder, 'token') },
  };
}

function mergeFiles(paths: readonly string[]): Merged {
  const merged: Merged = { paths, clusters: new Map(), users: new Map(), contexts: new Map(), current: undefined };
  for (const path of paths) {
    // kubectl passes over files of a list that are not there.
    if (paths.length > 1 && !exists(path)) continue;
    const file = readFile(path);
    const folder = dirname(path);
    const keep = <T>(map: Map<string, T>, name: string, value: T) => {
      if (!map.has(name)) map.set(name, value);
    };
    for (const { name, cluster } of file.clusters ?? []) keep(merged.clusters, name, { value: cluster, folder });
    for (const { name, user } of file.users ?? []) keep(merged.users, name, { value: user ?? {}, folder });
    for (const { name, context } of file.contexts ?? []) keep(merged.contexts, name, context);
    merged.current ??= file['current-context'] || undefined;
  }
  return merged;
}

function readFile(path: string): z.infer<typeof fileShape> {
  let content: unknown;
  try {
    content = parse(readFileSync(path, 'utf8'));
  } catch (error) {
    const known = fileError(error, path, 'read the kubeconfig');
    if (known !== error) throw known;
    // The message of the parser quotes lines, and lines of a kubeconfig are secrets.
    throw unusable(path, `it is no YAML: ${messageOf(error).split('\n')[0] ?? ''}`);
  }
  const result = fileShape.safeParse(content);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  throw unusable(path, `${issue?.path.join('.') || 'its content'}: ${issue?.message}`);
}

function settingsOf(merged: Merged, wanted: string | undefined): ClusterSettings {
  const where = merged.paths.join(', ');
  const name = wanted ?? merged.current;
  if (name === undefined)
    throw unusable(where, 'it has no current-context', 'Name a context in the configuration of dr, or set one.');
  const context = find(merged.contexts, 'context', name, where);
  const { value: cluster, folder } = find(merged.clusters, 'cluster', context.cluster, where);
  const user = context.user === undefined ? undefined : find(merged.users, 'user', context.user, where);
  const server = cluster.server.replace(/\/+$/, '');
  const settings: ClusterSettings = {
    server,
    origin: `context ${name}`,
    ca: decoded(cluster['certificate-authority-data']),
    caFile: absolute(folder, cluster['certificate-authority']),
    serverName: cluster['tls-server-name'],
    insecure: cluster['insecure-skip-tls-verify'] === true,
    proxy: cluster['proxy-url'],
    user: user === undefined ? { name: 'nobody' } : userOf(context.user ?? '', user.value, user.folder),
  };
  refuseOpenSecrets(settings, where);
  return settings;
}

function userOf(name: string, user: z.infer<typeof userShape>, folder: string): UserSettings {
  for (const secret of [user.token, user.password, user['client-key-data']])
    if (secret !== undefined) registerSecret(secret);
  const { username, password } = user;
  return {
    name,
    // A token file wins over a token, as for kubectl.
    token: user.tokenFile === undefined ? user.token : undefined,
    tokenFile: absolute(folder, user.tokenFile),
    cert: decoded(user['client-certificate-data']),
    certFile: absolute(folder, user['client-certificate']),
    key: decoded(user['client-key-data']),
    keyFile: absolute(folder, user['client-key']),
    basic: username !== undefined && password !== undefined ? { user: username, password } : undefined,
    impersonate: user.as,
    exec: user.exec && { ...user.exec, command: programIn(folder, user.exec.command) },
    authProvider: user['auth-provider'],
  };
}

/** A token sent without TLS can be read by everybody on the way; to this machine itself there is no way. */
function refuseOpenSecrets({ server, user }: ClusterSettings, where: string): void {
  const { protocol, hostname } = new URL(server);
  if (protocol === 'https:' || ['localhost', '127.0.0.1', '[::1]'].includes(hostname)) return;
  const { name: _name, ...credentials } = user;
  if (Object.values(credentials).every((value) => value === undefined)) return;
  throw unusable(where, `the user ${user.name} would send its credentials over plain http to ${server}`, 'Use https.');
}

function find<T>(map: ReadonlyMap<string, T>, what: string, name: string, where: string): T {
  const found = map.get(name);
  if (found !== undefined) return found;
  const known = [...map.keys()].join(', ') || 'none';
  throw unusable(where, `it has no ${what} "${name}"`, `Name one that it has: ${known}.`);
}

function unusable(
  where: string,
  why: string,
  next = 'Correct it, or write it anew with the tool of the cluster.',
): DrError {
  return new DrError('config', `the kubeconfig cannot be used: ${why}`, { where, next });
}

/** A program given with a folder is found from the kubeconfig, one without by PATH. */
function programIn(folder: string, command: string): string {
  return command.includes('/') ? (absolute(folder, command) ?? command) : command;
}

function absolute(folder: string, path: string | undefined): string | undefined {
  return path === undefined || isAbsolute(path) ? path : join(folder, path);
}

function decoded(base64: string | undefined): Buffer | undefined {
  return base64 === undefined ? undefined : Buffer.from(base64, 'base64');
}

function exists(path: string): boolean {
  try {
    accessSync(path);
    return true;
  } catch {
    return false;
  }
}
