import type { RecordType } from '../config/types.ts';
import type { LastWritten, TrafficFinding, TrafficState } from './contract.ts';
import { askTexts } from './dns-query.ts';
import { plainName, sameValues, showValues } from './record.ts';

/** Whether the record is still what dr wrote; nothing to say when dr has never written it. */
export function rivalFinding(
  type: RecordType,
  state: TrafficState,
  wrote: LastWritten | undefined,
): readonly TrafficFinding[] {
  if (wrote === undefined) return [];
  if (sameValues(type, state.values, wrote.values))
    return [{ ok: true, what: `${state.name} is as ${wrote.by} left it` }];
  return [
    {
      ok: false,
      severity: 'warning',
      what: `somebody else has changed ${state.name}: ${wrote.by} published ${showValues(wrote.values)} on ${new Date(wrote.atMs).toISOString()}, and now it is ${showValues(state.values)}`,
      next: 'Find out who writes this record (external-dns, infrastructure code, a person) and stop them: they may undo a redirect.',
    },
  ];
}

/**
 * Finds external-dns, which marks what it owns by a TXT record: under the same name, or under `a-`, `aaaa-`, `cname-` before it (its
 * registry since 0.12). With its `sync` policy it puts the record back within a minute. No finding when nothing of it is there.
 */
export async function externalDnsFindings(
  server: string,
  record: string,
  type: RecordType,
  timeoutMs: number,
  signal: AbortSignal | undefined,
): Promise<readonly TrafficFinding[]> {
  const name = plainName(record);
  const places = [name, `${type.toLowerCase()}-${name}`];
  const found = await Promise.all(
    places.map(async (place) => {
      // A server that does not answer is a finding of its own, made where its answers are looked at.
      const texts = await askTexts(server, place, timeoutMs, signal).catch((error: unknown) => {
        if (signal?.aborted) throw error;
        return [];
      });
      return texts.find((text) => text.includes('heritage=external-dns'));
    }),
  );
  const mark = found.find((text) => text !== undefined);
  if (mark === undefined) return [];
  const owner = /external-dns\/owner=([^,"]+)/.exec(mark)?.[1] ?? 'unknown';
  return [
    {
      ok: false,
      severity: 'warning',
      what: `external-dns (owner ${owner}) manages ${name}: it puts back what its cluster says`,
      next: 'Take the record out of its hands (annotation, domain or zone filter), or stop it in the fence stage of the runbook.',
    },
  ];
}
