import { readFileSync } from 'node:fs';
import type { RequestOptions } from 'node:https';
import type { Clock } from '../base/clock.ts';
import { DrError, fileError, messageOf } from '../base/errors.ts';
import { registerSecret } from '../base/redact.ts';
import type { ClusterSettings } from './settings.ts';

/** What goes with a request. */
export interface Credentials {
  readonly headers: Readonly<Record<string, string>>;
  /** PEM, for the connection. */
  readonly cert?: RequestOptions['cert'];
  readonly key?: RequestOptions['key'];
  /** A ready agent, where the way goes by a proxy or client-node signs in. */
  readonly agent?: RequestOptions['agent'];
}

/** Files are read again after this time, as client-go does. Milliseconds. */
const fileAgeMs = 60_000;

/**
 * Who dr is to the API server. Tokens in files are read again every minute; those of programs when they expire; `renew` drops what
 * was kept, for a server that says 401. client-node signs in for providers (OIDC, GCP, Azure) and goes by proxies: it costs
 * 90 MB of memory and is loaded for those only (docs/decisions/0009).
 */
export class Identity {
  readonly #settings: ClusterSettings;
  readonly #clock: Clock;
  readonly #files = new Map<string, { readonly content: Buffer; readonly readMs: number }>();
  #program:
    | Promise<{ applyAuthentication(user: { name: string }, options: RequestOptions): Promise<void> }>
    | undefined;
  #clientNode: Promise<{ applyToHTTPSOptions(options: RequestOptions): Promise<void> }> | undefined;

  constructor(settings: ClusterSettings, clock: Clock) {
    this.#settings = settings;
    this.#clock = clock;
  }

  /** Forgets tokens and files: the next request reads and asks anew. */
  renew(): void {
    this.#files.clear();
    this.#program = undefined;
    this.#clientNode = undefined;
  }

  /** The certificate authority of the server, PEM; undefined = those of the machine. */
  authority(): Buffer | undefined {
    const { ca, caFile } = this.#settings;
    return ca ?? (caFile === undefined ? undefined : this.#file(caFile));
  }

  async credentials(): Promise<Credentials> {
    const { user, proxy } = this.#settings;
    if (proxy !== undefined || user.authProvider !== undefined) return await this.#byClientNode();
    const headers: Record<string, string> = {};
    if (user.impersonate !== undefined) headers['impersonate-user'] = user.impersonate;
    const token = user.tokenFile === undefined ? user.token : this.#file(user.tokenFile).toString('utf8').trim();
    if (user.tokenFile !== undefined && token !== undefined) registerSecret(token);
    if (user.basic)
      headers['authorization'] = `Basic ${Buffer.from(`${user.basic.user}:${user.basic.password}`).toString('base64')}`;
    if (token !== undefined) headers['authorization'] = `Bearer ${token}`;
    const cert = user.cert ?? (user.certFile === undefined ? undefined : this.#file(user.certFile));
    const key = user.key ?? (user.keyFile === undefined ? undefined : this.#file(user.keyFile));
    const own = { headers, ...(cert && key && { cert, key }) };
    return user.exec === undefined || token !== undefined ? own : await this.#byProgram(own);
  }

  /** The program of the kubeconfig is run by client-node, which keeps its token until it expires. */
  async #byProgram(own: Credentials): Promise<Credentials> {
    const { server, user } = this.#settings;
    this.#program ??= import('@kubernetes/client-node/dist/exec_auth.js').then(({ ExecAuth }) => new ExecAuth());
    const env = Array.isArray(user.exec?.['env']) ? user.exec['env'] : [];
    const info = {
      apiVersion: user.exec?.['apiVersion'],
      kind: 'ExecCredential',
      spec: {
        interactive: false,
        ...(user.exec?.['provideClusterInfo'] === true && {
          cluster: { server, 'certificate-authority-data': this.authority()?.toString('base64') },
        }),
      },
    };
    const exec = { ...user.exec, env: [...env, { name: 'KUBERNETES_EXEC_INFO', value: JSON.stringify(info) }] };
    const options: RequestOptions = { headers: {} };
    const program = await this.#program;
    try {
      await program.applyAuthentication({ name: user.name, ...{ exec } }, options);
    } catch (cause) {
      const said = messageOf(cause).trim();
      throw new DrError('denied', `the program that signs in to the cluster failed: ${said || 'it said nothing'}`, {
        where: `exec ${String(user.exec?.['command'])} of ${this.#settings.origin}`,
        next: 'Run it by hand to see why, or sign in again.',
        cause,
      });
    }
    return {
      headers: { ...own.headers, ...plainHeaders(options) },
      cert: options.cert ?? own.cert,
      key: options.key ?? own.key,
    };
  }

  async #byClientNode(): Promise<Credentials> {
    const { server, ca, caFile, serverName, insecure, proxy, user, origin } = this.#settings;
    this.#clientNode ??= import('@kubernetes/client-node').then(({ KubeConfig }) => {
      const config = new KubeConfig();
      const byFile = user.tokenFile && { name: 'tokenFile', config: { tokenFile: user.tokenFile } };
      config.loadFromOptions({
        clusters: [
          {
            name: 'cluster',
            server,
            caData: ca?.toString('base64'),
            caFile,
            tlsServerName: serverName,
            skipTLSVerify: insecure || server.startsWith('http:'),
            proxyUrl: proxy,
          },
        ],
        users: [
          {
            name: user.name,
            token: user.token,
            certData: user.cert?.toString('base64'),
            certFile: user.certFile,
            keyData: user.key?.toString('base64'),
            keyFile: user.keyFile,
            username: user.basic?.user,
            password: user.basic?.password,
            impersonateUser: user.impersonate,
            exec: user.exec,
            authProvider: user.authProvider ?? byFile,
          },
        ],
        contexts: [{ name: origin, cluster: 'cluster', user: user.name }],
        currentContext: origin,
      });
      return config;
    });
    const options: RequestOptions = {};
    try {
      await (await this.#clientNode).applyToHTTPSOptions(options);
    } catch (cause) {
      throw new DrError('denied', `cannot sign in to the cluster: ${messageOf(cause)}`, {
        where: origin,
        next: 'Sign in again with the tool of the cluster.',
        cause,
      });
    }
    const basic = options.auth && { authorization: `Basic ${Buffer.from(options.auth).toString('base64')}` };
    return { headers: { ...basic, ...plainHeaders(options) }, agent: options.agent };
  }

  #file(path: string): Buffer {
    const kept = this.#files.get(path);
    const nowMs = this.#clock.now();
    if (kept && nowMs - kept.readMs < fileAgeMs) return kept.content;
    try {
      const content = readFileSync(path);
      // The same content stays the same buffer: connections are kept as long as their certificates are.
      const same = kept?.content.equals(content) ? kept.content : content;
      this.#files.set(path, { content: same, readMs: nowMs });
      return same;
    } catch (error) {
      throw fileError(error, path, 'read the credentials for the cluster');
    }
  }
}

function plainHeaders({ headers }: RequestOptions): Record<string, string> {
  const found = Object.entries(headers ?? {}).map(([key, value]): [string, string] => [
    key.toLowerCase(),
    String(value),
  ]);
  const { authorization } = Object.fromEntries(found);
  if (authorization !== undefined) registerSecret(authorization.replace(/^\w+ /, ''));
  return Object.fromEntries(found);
}
