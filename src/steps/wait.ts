import { z } from 'zod';
import { formatDuration } from '../base/units.ts';
import { defineStep } from './contract.ts';
import { duration } from './params.ts';

/** How often the rest of the time is shown, milliseconds. */
const SHOW_MS = 1000;

export const wait = defineStep({
  name: 'wait',
  summary: 'Wait for a fixed time',
  effect: 'none',
  modes: ['failover', 'switchover', 'failback', 'drill'],
  params: z.object({
    time: duration('30s').describe('How long.'),
    reason: z.string().default('').describe('What is waited for; for people.'),
  }),
  outputs: z.object({ waitedMs: z.number().describe('How long it was waited, milliseconds.') }),
  timeoutMs: 24 * 60 * 60_000,
  async plan(_context, { time = 0, reason = '' }) {
    return {
      target: 'nothing',
      present: '',
      will: [`wait ${formatDuration(time)}${reason === '' ? '' : `: ${reason}`}`],
      problems: [],
    };
  },
  async run({ clock, signal, progress, note }, { time, reason }) {
    const begun = clock.now();
    for (let passed = 0; passed < time; passed = clock.now() - begun) {
      progress({ task: 'watch', done: passed / 1000, total: time / 1000, unit: 'seconds', detail: reason });
      await clock.sleep(Math.min(SHOW_MS, time - passed), signal);
    }
    note(`waited ${formatDuration(time)}${reason === '' ? '' : `: ${reason}`}`);
    return { waitedMs: clock.now() - begun };
  },
});
