import {
  type Change,
  ChangeResourceRecordSetsCommand,
  GetChangeCommand,
  GetHostedZoneCommand,
  ListHostedZonesByNameCommand,
  ListResourceRecordSetsCommand,
  type ResourceRecordSet,
  Route53Client,
} from '@aws-sdk/client-route-53';
import { NodeHttpHandler } from '@smithy/node-http-handler';
import { type Clock, systemClock } from '../base/clock.ts';
import type { Log } from '../base/log.ts';
import { retry } from '../base/retry.ts';
import { plainName } from './record.ts';
import { route53Error } from './route53-errors.ts';

export interface Route53ApiOptions {
  /** The hosted zone: `Z123`, with or without `/hostedzone/` before it. */
  readonly zone: string;
  readonly endpoint: string | undefined;
  readonly credentials: { readonly accessKeyId: string; readonly secretAccessKey: string } | undefined;
  readonly log: Log;
  readonly clock?: Clock;
  /** Milliseconds one request may take before it is tried again; default 10,000. */
  readonly requestTimeoutMs?: number;
  /** Tries of one call, the first included; default 6 (pauses of up to 0.2, 0.4, 0.8, 1.6 and 3.2 s). */
  readonly attempts?: number;
}

/** Public Route 53 is one global service whose API is signed for and lives in us-east-1. */
const region = 'us-east-1';

/**
 * The few calls of Route 53 that a redirect needs, each retried when throttled or unanswered and each failing with a
 * `DrError` that names the permission, zone or change concerned.
 */
export class Route53Api {
  readonly zone: string;
  readonly clock: Clock;
  readonly #client: Route53Client;
  readonly #options: Route53ApiOptions;

  constructor(options: Route53ApiOptions) {
    this.zone = options.zone.replace(/^\/?hostedzone\//, '');
    this.clock = options.clock ?? systemClock;
    this.#options = options;
    this.#client = new Route53Client({
      region,
      // One layer retries, ours: it is logged, it follows the signal and its clock is the caller's.
      maxAttempts: 1,
      requestHandler: new NodeHttpHandler({
        connectionTimeout: 3000,
        requestTimeout: options.requestTimeoutMs ?? 10_000,
        throwOnRequestTimeout: true,
      }),
      ...(options.endpoint === undefined ? {} : { endpoint: options.endpoint }),
      ...(options.credentials === undefined ? {} : { credentials: options.credentials }),
    });
  }

  /** The zone's name without trailing dot, its own name servers (none for a private zone), whether it is private. */
  async zoneFacts(signal?: AbortSignal): Promise<{ name: string; nameservers: readonly string[]; isPrivate: boolean }> {
    const reply = await this.#call('GetHostedZone', signal, (abort) =>
      this.#client.send(new GetHostedZoneCommand({ Id: this.zone }), abort),
    );
    return {
      name: plainName(reply.HostedZone?.Name ?? ''),
      nameservers: (reply.DelegationSet?.NameServers ?? []).map(plainName),
      isPrivate: reply.HostedZone?.Config?.PrivateZone ?? false,
    };
  }

  /** Every record set of exactly this name, of any type. */
  async recordsOf(name: string, signal?: AbortSignal): Promise<ResourceRecordSet[]> {
    const found: ResourceRecordSet[] = [];
    let start: {
      StartRecordName: string;
      StartRecordType?: ResourceRecordSet['Type'];
      StartRecordIdentifier?: string;
    } = {
      StartRecordName: `${name}.`,
    };
    for (;;) {
      const page = await this.#call('ListResourceRecordSets', signal, (abort) =>
        this.#client.send(
          new ListResourceRecordSetsCommand({ HostedZoneId: this.zone, MaxItems: 20, ...start }),
          abort,
        ),
      );
      const sets = page.ResourceRecordSets ?? [];
      const ours = sets.filter((set) => plainName(set.Name ?? '') === plainName(name));
      found.push(...ours);
      // The list goes on in order of names: the first foreign name ends ours.
      if (!page.IsTruncated || page.NextRecordName === undefined || ours.length < sets.length) return found;
      start = {
        StartRecordName: page.NextRecordName,
        ...(page.NextRecordType === undefined ? {} : { StartRecordType: page.NextRecordType }),
        ...(page.NextRecordIdentifier === undefined ? {} : { StartRecordIdentifier: page.NextRecordIdentifier }),
      };
    }
  }

  /** Submits one atomic batch: all of it takes effect or none. Returns the change id, without `/change/`. */
  async change(changes: Change[], comment: string, signal?: AbortSignal): Promise<string> {
    const reply = await this.#call('ChangeResourceRecordSets', signal, (abort) =>
      this.#client.send(
        new ChangeResourceRecordSetsCommand({
          HostedZoneId: this.zone,
          ChangeBatch: { Comment: comment, Changes: changes },
        }),
        abort,
      ),
    );
    return (reply.ChangeInfo?.Id ?? '').replace(/^\/change\//, '');
  }

  /** `INSYNC` once all authoritative servers have the change, `PENDING` before. */
  async changeStatus(id: string, signal?: AbortSignal): Promise<string> {
    const reply = await this.#call(
      'GetChange',
      signal,
      (abort) => this.#client.send(new GetChangeCommand({ Id: id }), abort),
      `change ${id}`,
    );
    return reply.ChangeInfo?.Status ?? 'PENDING';
  }

  /** The id of a hosted zone with this name that these credentials can see, if any. */
  async zoneNamed(name: string, signal?: AbortSignal): Promise<string | undefined> {
    const reply = await this.#call('ListHostedZonesByName', signal, (abort) =>
      this.#client.send(new ListHostedZonesByNameCommand({ DNSName: name, MaxItems: 1 }), abort),
    );
    const zone = reply.HostedZones?.[0];
    return zone !== undefined && plainName(zone.Name ?? '') === plainName(name)
      ? zone.Id?.replace(/^\/hostedzone\//, '')
      : undefined;
  }

  close(): void {
    this.#client.destroy();
  }

  #call<T>(
    action: string,
    signal: AbortSignal | undefined,
    send: (options: { abortSignal?: AbortSignal }) => Promise<T>,
    subject = `zone ${this.zone}`,
  ): Promise<T> {
    const where = `route53 ${subject}`;
    return retry(
      async () => {
        try {
          return await send(signal ? { abortSignal: signal } : {});
        } catch (error) {
          throw route53Error(error, { action, where, endpoint: this.#options.endpoint, signal });
        }
      },
      {
        attempts: this.#options.attempts ?? 6,
        baseMs: 200,
        maxMs: 5000,
        clock: this.clock,
        signal,
        onRetry: (error, attempt, pauseMs) =>
          this.#options.log.warn({ error, action, attempt, pauseMs: Math.round(pauseMs) }, 'Route 53 is asked again'),
      },
    );
  }
}
