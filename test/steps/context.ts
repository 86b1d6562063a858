import { systemClock } from '../../src/base/clock.ts';
import { silentLog } from '../../src/base/log.ts';
import type { Config } from '../../src/config/types.ts';
import type { RunMode, StepContext } from '../../src/steps/contract.ts';

/** A context for one step alone; what it notes is kept. Parts of the world that a test does not give are missing. */
export function stepContext(
  config: Partial<Config>,
  { mode = 'failover' as RunMode, signal = new AbortController().signal, clock = systemClock } = {},
): StepContext & { readonly notes: string[] } {
  const notes: string[] = [];
  return {
    run: {
      id: '20261123T030000000Z-abc123',
      mode,
      site: 'west',
      from: 'east',
      at: { kind: 'latest' },
      startedAtMs: clock.now(),
      acceptedSplitBrain: undefined,
    },
    each: undefined,
    world: { config: { source: { path: '/etc/dr.yaml', text: '' }, ...config } } as StepContext['world'],
    clock,
    log: silentLog,
    signal,
    progress: () => {},
    note: (sentence) => notes.push(sentence),
    notes,
  };
}
