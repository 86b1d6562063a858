import type { Change } from '@aws-sdk/client-route-53';
import { DrError, isAbort, messageOf } from '../base/errors.ts';
import type { TrafficConfig } from '../config/types.ts';
import type { TrafficDriver, TrafficFinding, TrafficState } from './contract.ts';
import { isInZone, plainName, sameValues, showValues } from './record.ts';
import type { Route53Api } from './route53-api.ts';
import { isInvalidBatch } from './route53-errors.ts';

type Route53Config = TrafficConfig['route53'];

/** The longest TTL with which a redirect still reaches clients in time, seconds: resolvers keep the old answer that long. */
const ttlLimitSeconds = 60;

/**
 * Looks at everything a redirect will need, in the order in which it would fail, and changes nothing.
 * A finding that makes the later ones meaningless (no zone, no credentials) ends the list.
 */
export async function route53Doctor(
  api: Route53Api,
  config: Route53Config,
  driver: Pick<TrafficDriver, 'current' | 'answers'>,
  signal: AbortSignal | undefined,
): Promise<TrafficFinding[]> {
  const findings: TrafficFinding[] = [];
  const record = `${plainName(config.record)} ${config.type}`;
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
    const state = await driver.current(signal);
    findings.push(...recordFindings(config, record, state));
    findings.push(await changePermission(api, config, state, signal));
    findings.push(await readChangePermission(api, signal));
    findings.push(...(await answerFindings(config, state, driver, signal)));
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

function recordFindings(config: Route53Config, record: string, state: TrafficState): TrafficFinding[] {
  if (state.values.length === 0) {
    return [
      {
        ok: false,
        what: `there is no record ${record}`,
        next: 'Create it with the address of the active site: until then no client finds the system, and negative answers are cached.',
      },
    ];
  }
  const findings: TrafficFinding[] = [{ ok: true, what: `${record} points to ${showValues(state.values)}` }];
  const short = state.ttlSeconds <= ttlLimitSeconds;
  findings.push({
    ok: short,
    what: `the TTL of ${record} is ${state.ttlSeconds} s`,
    ...(short
      ? {}
      : {
          severity: 'warning' as const,
          next: `Lower it to ${ttlLimitSeconds} s or less now: resolvers keep the old address that long after a redirect.`,
        }),
  });
  if (config.ttlSeconds > ttlLimitSeconds) {
    findings.push({
      ok: false,
      severity: 'warning',
      what: `a redirect would publish a TTL of ${config.ttlSeconds} s`,
      next: `Set route53.ttl of this traffic entry to ${ttlLimitSeconds} or less.`,
    });
  }
  return findings;
}

/**
 * Submits a batch that Route 53 must reject whatever the record is, because its two halves contradict each other: creating
 * what exists twice, or deleting what does not exist twice. Rejection of the batch shows the permission (which is checked first
 * and may be limited to names and types), and nothing can change.
 */
async function changePermission(
  api: Route53Api,
  config: Route53Config,
  state: TrafficState,
  signal: AbortSignal | undefined,
): Promise<TrafficFinding> {
  const absent = state.values.length === 0;
  const placeholder = { A: '192.0.2.1', AAAA: '2001:db8::1', CNAME: 'dr-permission-probe.invalid' }[config.type];
  const change: Change = {
    Action: absent ? 'DELETE' : 'CREATE',
    ResourceRecordSet: {
      Name: `${plainName(config.record)}.`,
      Type: config.type,
      TTL: absent ? config.ttlSeconds : state.ttlSeconds,
      ResourceRecords: (absent ? [placeholder] : state.values).map((value) => ({ Value: value })),
    },
  };
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

async function answerFindings(
  config: Route53Config,
  state: TrafficState,
  driver: Pick<TrafficDriver, 'answers'>,
  signal: AbortSignal | undefined,
): Promise<TrafficFinding[]> {
  const answers = await driver.answers(signal);
  if (answers.length === 0) {
    return [
      {
        ok: false,
        severity: 'warning',
        what: 'the zone is private, so no authoritative name server can be asked what clients get',
        next: 'List the resolvers of the private network under route53.nameservers.',
      },
    ];
  }
  return answers.map(({ server, values, error }) => {
    if (error !== undefined) {
      return {
        ok: false,
        what: `name server ${server} does not answer for the zone: ${messageOf(error)}`,
        next: 'Open UDP and TCP port 53 from here to it, or correct route53.nameservers and the delegation of the zone.',
      };
    }
    const matches = sameValues(config.type, values, state.values);
    return {
      ok: matches,
      what: `name server ${server} answers ${showValues(values)}${matches ? '' : `, but the record says ${showValues(state.values)}`}`,
      ...(matches
        ? {}
        : {
            next: 'Wait for a change that is under way (60 s); if it lasts, the zone is not the one that is delegated.',
          }),
    };
  });
}
