import type { ResourceRecordSet } from '@aws-sdk/client-route-53';
import { DrError, isAbort } from '../base/errors.ts';
import type { Route53Config } from '../config/types.ts';
import type { LastWritten, TrafficAnswer, TrafficFinding } from './contract.ts';
import type { NameWatch } from './name-watch.ts';
import { isInZone, plainName } from './record.ts';
import { answerFindings, stateFindings } from './record-doctor.ts';
import { externalDnsFindings, rivalFinding } from './rivals.ts';
import type { Route53Api } from './route53-api.ts';
import { isInvalidBatch } from './route53-errors.ts';
import type { Route53Routing } from './route53-routing.ts';

export interface Route53Patient {
  readonly api: Route53Api;
  readonly config: Route53Config;
  readonly routing: Route53Routing;
  readonly watch: NameWatch;
  published(): Promise<ResourceRecordSet[]>;
  answers(): Promise<readonly TrafficAnswer[]>;
}

/**
 * Looks at everything a redirect will need, in the order in which it would fail, and changes nothing.
 * A finding that makes the later ones meaningless (no zone, no credentials) ends the list.
 */
export async function route53Doctor(
  patient: Route53Patient,
  signal: AbortSignal | undefined,
  wrote: LastWritten | undefined,
): Promise<TrafficFinding[]> {
  const { api, config, routing, watch } = patient;
  const findings: TrafficFinding[] = [];
  try {
    const zone = await api.zoneFacts(signal);
    findings.push({ ok: true, what: `hosted zone ${api.zone} (${zone.name}) can be read` });
    if (!isInZone(config.record, zone.name)) {
      findings.push({
        ok: false,
        what: `${plainName(config.record)} does not belong to the zone ${zone.name}`,
        next: await zoneHint(api, config, signal),
      });
      return findings;
    }
    const sets = await patient.published();
    const state = routing.state(sets);
    findings.push(...stateFindings(state, { kind: config.kind, ttlSeconds: config.ttlSeconds }));
    findings.push(...routing.findings(sets), ...rivalFinding(config.type, state, wrote));
    findings.push(await changePermission(patient, sets, signal));
    findings.push(await readChangePermission(api, signal));
    const answers = await patient.answers();
    findings.push(
      ...answerFindings(answers, state, watch, {
        none: {
          what: 'the zone is private, so no authoritative name server can be asked what clients get',
          next: 'List the resolvers of the private network under route53.nameservers.',
        },
        silent:
          'Open UDP and TCP port 53 from here to it, or correct route53.nameservers and the delegation of the zone.',
        behind: 'Wait for a change that is under way (60 s); if it lasts, the zone is not the one that is delegated.',
      }),
    );
    const [server] = answers.filter(({ error }) => error === undefined);
    if (server) {
      findings.push(...(await externalDnsFindings(server.server, config.record, config.type, watch.timeoutMs, signal)));
    }
  } catch (error) {
    if (isAbort(error) || !(error instanceof DrError)) throw error;
    const next = error.kind === 'not-found' ? await zoneHint(api, config, signal) : error.next;
    findings.push({ ok: false, what: error.message, ...(next === undefined ? {} : { next }) });
  }
  return findings;
}

/** Names the zone that would fit, where these credentials can see it. */
async function zoneHint(api: Route53Api, config: Route53Config, signal: AbortSignal | undefined): Promise<string> {
  const labels = plainName(config.record).split('.');
  for (let first = 0; first < labels.length - 1; first++) {
    const name = labels.slice(first).join('.');
    const id = await api.zoneNamed(name, signal).catch((error: unknown) => {
      if (isAbort(error)) throw error;
      return undefined;
    });
    if (id !== undefined) return `Set route53.zone of this traffic entry to ${id}, the zone ${name} of this account.`;
  }
  return 'Set route53.zone of this traffic entry to the zone that holds the record (aws route53 list-hosted-zones shows the ids).';
}

/**
 * Submits a batch that Route 53 must reject whatever the record is, because its two halves contradict each other: creating
 * what exists twice, or deleting what does not exist twice. Rejection of the batch shows the permission (which is checked first
 * and may be limited to names and types), and nothing can change.
 */
async function changePermission(
  { api, routing }: Route53Patient,
  sets: readonly ResourceRecordSet[],
  signal: AbortSignal | undefined,
): Promise<TrafficFinding> {
  const change = { Action: sets.length === 0 ? 'DELETE' : 'CREATE', ResourceRecordSet: routing.probe(sets) } as const;
  try {
    const id = await api.change([change, change], 'dr doctor: a batch that cannot succeed', signal);
    return {
      ok: false,
      what: `the endpoint accepted a batch that contradicts itself (change ${id}): it is not a faithful Route 53`,
      next: 'Use the real Route 53 or an endpoint with atomic, validated batches: without them a redirect is not safe against a rival.',
    };
  } catch (error) {
    if (isInvalidBatch(error)) return { ok: true, what: 'these credentials may change the record' };
    return permissionFinding(error);
  }
}

/** GetChange for an id that cannot exist: "no such change" shows that the question is allowed. */
async function readChangePermission(api: Route53Api, signal: AbortSignal | undefined): Promise<TrafficFinding> {
  const allowed: TrafficFinding = { ok: true, what: 'these credentials may follow a change until it is in sync' };
  try {
    await api.changeStatus('CDRDOCTORPROBE', signal);
    return allowed;
  } catch (error) {
    return error instanceof DrError && error.kind === 'not-found' ? allowed : permissionFinding(error);
  }
}

function permissionFinding(error: unknown): TrafficFinding {
  if (isAbort(error) || !(error instanceof DrError)) throw error;
  return { ok: false, what: error.message, ...(error.next === undefined ? {} : { next: error.next }) };
}
