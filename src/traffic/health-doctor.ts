import { DrError, isAbort } from '../base/errors.ts';
import type { HealthConfig } from '../config/types.ts';
import type { LastWritten, TrafficAnswer, TrafficFinding, TrafficState } from './contract.ts';
import type { SwitchLook } from './health-switches.ts';
import type { NameWatch } from './name-watch.ts';
import { showValues } from './record.ts';
import { answerFindings, ttlFinding } from './record-doctor.ts';
import { externalDnsFindings, rivalFinding } from './rivals.ts';

export interface HealthPatient {
  readonly config: HealthConfig;
  readonly watch: NameWatch;
  looks(): Promise<readonly SwitchLook[]>;
  current(): Promise<TrafficState>;
  servers(): Promise<readonly string[]>;
  answers(): Promise<readonly TrafficAnswer[]>;
}

/** Looks at every switch, the right to write it, and whether DNS follows; changes nothing. */
export async function healthDoctor(
  patient: HealthPatient,
  signal: AbortSignal | undefined,
  wrote: LastWritten | undefined,
): Promise<TrafficFinding[]> {
  const { config, watch } = patient;
  const findings: TrafficFinding[] = [];
  const looks = await patient.looks();
  for (const look of looks) findings.push(await lookFinding(look, config, looks.length, signal));
  try {
    const state = await patient.current();
    findings.push({ ok: true, what: `${state.name} leads to ${showValues(state.values)} by its switch` });
    findings.push(ttlFinding(state.name, state.ttlSeconds), ...rivalFinding(config.type, state, wrote));
    findings.push(
      ...answerFindings(await patient.answers(), state, watch, {
        none: {
          what: 'no authoritative name server is known, so nobody sees whether DNS follows the switch',
          next: 'List them under health.nameservers.',
        },
        silent: 'Open UDP and TCP port 53 from here to it, or correct health.nameservers.',
        behind:
          'See that the PRIMARY record is bound to a health check that reads this switch, inverted, and what its status is (docs/traffic.md).',
      }),
    );
    const [server] = await patient.servers();
    if (server !== undefined)
      findings.push(...(await externalDnsFindings(server, config.record, config.type, watch.timeoutMs, signal)));
  } catch (error) {
    if (isAbort(error) || !(error instanceof DrError)) throw error;
    // What single switches say stands above already.
    if (!looks.some((look) => 'error' in look && look.error === error.cause)) findings.push(findingOf(error));
  }
  return findings;
}

async function lookFinding(
  look: SwitchLook,
  { primary }: HealthConfig,
  count: number,
  signal: AbortSignal | undefined,
): Promise<TrafficFinding> {
  const { at } = look;
  // Of several, one may be away: the others decide.
  const severity = count > 2 ? ('warning' as const) : undefined;
  if ('error' in look) return { ...findingOf(look.error, at.where), ...(severity && { severity }) };
  try {
    await at.checkWrite(signal);
  } catch (error) {
    if (isAbort(error) || !(error instanceof DrError)) throw error;
    return { ...findingOf(error, at.where), ...(severity && { severity }) };
  }
  const said =
    look.document === undefined
      ? `is not there yet, which means ${primary}`
      : `names ${look.document.site} (generation ${look.document.generation})`;
  return { ok: true, what: `the switch ${at.where} can be written and ${said}` };
}

function findingOf(error: DrError, where?: string): TrafficFinding {
  const what = where === undefined ? error.message : `${error.message} (${where})`;
  return { ok: false, what, ...(error.next === undefined ? {} : { next: error.next }) };
}
