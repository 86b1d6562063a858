import { createServer, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { codeOf, DrError, messageOf } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { Readiness } from './readiness.ts';

export interface HttpOptions {
  /** Port 0: any free one. */
  readonly listen: { readonly host: string; readonly port: number };
  readonly log: Log;
  /** The process does its work and is not merely there. */
  health(): { readonly ok: boolean; readonly detail: string };
  /** False until the first look at the vaults has been taken, whatever they answered. */
  started(): boolean;
  ready(): Readiness;
  /** What the daemon does: role, jobs, services. */
  state(): object;
  metrics(): Promise<{ readonly contentType: string; readonly text: string }>;
}

export interface HttpServer {
  /** `http://127.0.0.1:8080`. */
  readonly url: string;
  close(): Promise<void>;
}

/** Serves what watches the daemon: probes, metrics, state. Read-only: nothing can be changed through it. */
export async function serveHttp(options: HttpOptions): Promise<HttpServer> {
  const { host, port } = options.listen;
  const server = createServer({ requestTimeout: 10_000, headersTimeout: 10_000 }, (request, response) => {
    answer(options, request.method ?? '', request.url ?? '', response).catch((error: unknown) => {
      options.log.error({ url: request.url, error }, 'a request to the daemon failed');
      if (response.headersSent) response.destroy();
      else send(response, 500, 'application/json', JSON.stringify({ error: messageOf(error) }));
    });
  });
  await listen(server, host, port);
  const bound = (server.address() as AddressInfo).port;
  const url = `http://${host.includes(':') ? `[${host}]` : host}:${bound}`;
  options.log.info({ url }, 'serving /health, /startup, /ready, /state and /metrics');
  return {
    url,
    close: async () => {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeAllConnections();
      await closed;
    },
  };
}

async function answer(options: HttpOptions, method: string, target: string, response: ServerResponse): Promise<void> {
  const path = target.replace(/[?#].*$/, '');
  if (method !== 'GET' && method !== 'HEAD') return json(response, 405, { error: 'only GET is answered' });
  switch (path) {
    case '/health': {
      const health = options.health();
      return json(response, health.ok ? 200 : 503, health);
    }
    case '/startup':
      return json(response, options.started() ? 200 : 503, { started: options.started() });
    case '/ready': {
      const readiness = options.ready();
      return json(response, readiness.ready ? 200 : 503, readiness);
    }
    case '/state':
      return json(response, 200, options.state());
    case '/metrics': {
      const { contentType, text } = await options.metrics();
      return send(response, 200, contentType, text);
    }
    default:
      return json(response, 404, { error: `there is no ${path}; there are /health /startup /ready /state /metrics` });
  }
}

function json(response: ServerResponse, status: number, value: object): void {
  send(response, status, 'application/json', `${JSON.stringify(value, undefined, 1)}\n`);
}

function send(response: ServerResponse, status: number, contentType: string, body: string): void {
  response.writeHead(status, {
    'content-type': contentType,
    'content-length': Buffer.byteLength(body),
    'cache-control': 'no-store',
  });
  response.end(body);
}

async function listen(server: Server, host: string, port: number): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) => {
      const code = codeOf(error);
      const next =
        code === 'EADDRINUSE'
          ? 'Another daemon may run here already; else set daemon.listen to a free port.'
          : 'Correct daemon.listen in the configuration.';
      reject(
        new DrError('local', `cannot listen: ${messageOf(error)}`, { where: `${host}:${port}`, next, cause: error }),
      );
    });
    server.listen(port, host, () => resolve());
  });
}
