import type { AddressInfo } from 'node:net';
import { createApi } from './api.ts';
import { DnsServer } from './dns.ts';
import { Faults } from './faults.ts';
import { Zone } from './zone.ts';

export interface Route53Options {
  readonly zoneId: string;
  readonly zoneName: string;
  /** Ports on 127.0.0.1; 0 or none = any free one. `dns` serves UDP and TCP. */
  readonly ports?: { readonly http?: number; readonly dns?: number };
  /** Milliseconds from accepting a change to INSYNC (and to the name server's new answer); default 0. */
  readonly insyncDelayMs?: number;
  /** Keeps the records in this JSON file over restarts. */
  readonly stateFile?: string;
  /** Access key ids that are accepted; default any. */
  readonly accessKeys?: readonly string[];
  /** Name servers that the zone names instead of the embedded one; an empty list makes the zone private. */
  readonly delegation?: readonly string[];
  readonly batchErrorForm?: 'error-response' | 'own-document';
}

/** A running Route 53 compatible endpoint with the name server of its one zone. */
export interface Route53Server extends AsyncDisposable {
  /** For `route53.endpoint`: `http://127.0.0.1:43251`. */
  readonly endpoint: string;
  /** For `route53.nameservers` and resolvers: `127.0.0.1:43252`. */
  readonly nameserver: string;
  readonly zone: Zone;
  readonly faults: Faults;
  /** The API actions that were called, in order. */
  readonly calls: string[];
  /** How many DNS queries came, by transport. */
  readonly queries: { readonly udp: number; readonly tcp: number };
  close(): Promise<void>;
}

/** Starts the endpoint and the name server on 127.0.0.1. */
export async function startRoute53(options: Route53Options): Promise<Route53Server> {
  const zone = new Zone({
    zoneId: options.zoneId,
    zoneName: options.zoneName,
    insyncDelayMs: options.insyncDelayMs ?? 0,
    stateFile: options.stateFile,
  });
  const faults = new Faults();
  const calls: string[] = [];
  const dns = new DnsServer(zone, faults);
  const dnsPort = await dns.listen(options.ports?.dns ?? 0);
  const nameserver = `127.0.0.1:${dnsPort}`;
  const api = createApi(
    {
      zone,
      faults,
      nameservers: () => options.delegation ?? [nameserver],
      accessKeys: options.accessKeys,
      batchErrorForm: options.batchErrorForm ?? 'error-response',
    },
    calls,
  );
  try {
    await new Promise<void>((resolve, reject) => {
      api.once('error', reject);
      api.listen(options.ports?.http ?? 0, '127.0.0.1', resolve);
    });
  } catch (error) {
    await dns.close();
    throw error;
  }
  let closing: Promise<unknown> | undefined;
  const close = async () => {
    closing ??= (() => {
      zone.close();
      const closed = new Promise<void>((resolve) => api.close(() => resolve()));
      api.closeAllConnections();
      return Promise.all([closed, dns.close()]);
    })();
    await closing;
  };
  return {
    endpoint: `http://127.0.0.1:${(api.address() as AddressInfo).port}`,
    nameserver,
    zone,
    faults,
    calls,
    queries: dns.queries,
    close,
    [Symbol.asyncDispose]: close,
  };
}
