import { DrError, isAbort } from '../base/errors.ts';
import type { Rfc2136Config } from '../config/types.ts';
import type { LastWritten, TrafficAnswer, TrafficFinding, TrafficState } from './contract.ts';
import type { NameWatch } from './name-watch.ts';
import { plainName } from './record.ts';
import { answerFindings, stateFindings } from './record-doctor.ts';
import { add, isAbsent, remove, type Update } from './rfc2136-client.ts';
import { externalDnsFindings, rivalFinding } from './rivals.ts';
import { classCode, typeCode } from './wire.ts';

export interface Rfc2136Patient {
  readonly config: Rfc2136Config;
  readonly watch: NameWatch;
  soa(): Promise<{ readonly serial: number; readonly primary: string }>;
  current(): Promise<TrafficState>;
  answers(): Promise<readonly TrafficAnswer[]>;
  send(update: Update): Promise<'done' | 'unmet'>;
}

/** Looks at everything a redirect will need, in the order in which it would fail, and changes nothing. */
export async function rfc2136Doctor(
  patient: Rfc2136Patient,
  signal: AbortSignal | undefined,
  wrote: LastWritten | undefined,
): Promise<TrafficFinding[]> {
  const { config, watch } = patient;
  const findings: TrafficFinding[] = [];
  try {
    const { serial } = await patient.soa();
    findings.push({ ok: true, what: `${config.server} serves the zone ${config.zone} (serial ${serial})` });
    const state = await patient.current();
    findings.push(...stateFindings(state, config), ...rivalFinding(config.type, state, wrote));
    findings.push(await permission(patient, state));
    findings.push(
      ...answerFindings(await patient.answers(), state, watch, {
        none: {
          what: `the zone ${config.zone} names no name server`,
          next: 'List its servers under rfc2136.nameservers.',
        },
        silent:
          'Open UDP and TCP port 53 from here to it, or correct rfc2136.nameservers and the NS records of the zone.',
        behind: 'See why this server does not follow the primary: NOTIFY, zone transfer, or another zone of that name.',
      }),
    );
    findings.push(...(await externalDnsFindings(config.server, config.record, config.type, watch.timeoutMs, signal)));
  } catch (error) {
    if (isAbort(error) || !(error instanceof DrError)) throw error;
    findings.push(refusal(error));
  }
  return findings;
}

/**
 * Sends a signed update that cannot happen whatever the record is, because two of its prerequisites contradict each other (some
 * record of the type, and none). That it fails on them, and not on the key, shows the permission: BIND since 9.18.11 looks at
 * it first, servers that look later (RFC 2136 has it after the prerequisites) show only that the key is good.
 */
async function permission({ config, send }: Rfc2136Patient, state: TrafficState): Promise<TrafficFinding> {
  const name = plainName(config.record);
  const present = { name, type: typeCode[config.type], class: classCode.ANY, ttl: 0, data: Buffer.alloc(0) };
  const placeholder = { A: '192.0.2.1', AAAA: '2001:db8::1', CNAME: 'dr-permission-probe.invalid' }[config.type];
  const values = state.values.length > 0 ? state.values : [placeholder];
  try {
    const outcome = await send({
      prerequisites: [present, isAbsent(name, config.type)],
      updates: [remove(name, config.type), ...add(name, config.type, values, config.ttlSeconds)],
    });
    if (outcome === 'unmet') return { ok: true, what: `the key ${config.key.name} may send updates of the record` };
    return {
      ok: false,
      what: 'the name server made a change whose conditions contradict each other: it ignores them',
      next: 'Use a server that follows RFC 2136: without its prerequisites a redirect is not safe against a rival.',
    };
  } catch (error) {
    if (isAbort(error) || !(error instanceof DrError)) throw error;
    return refusal(error);
  }
}

function refusal(error: DrError): TrafficFinding {
  return { ok: false, what: error.message, ...(error.next === undefined ? {} : { next: error.next }) };
}
