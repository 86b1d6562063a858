import { z } from 'zod';
import { DrError } from '../base/errors.ts';
import { printableUrl } from '../base/redact.ts';
import { defineStep } from './contract.ts';
import { databaseUrl, memberOf } from './places.ts';

export const databaseQuiesce = defineStep({
  name: 'database.quiesce',
  summary: 'End all writers of the living primary, lock their roles out and make it read-only, until the move is over',
  effect: 'changes',
  modes: ['failover', 'switchover', 'failback'],
  over: 'databases',
  params: z.object({}),
  outputs: z.object({
    flushedTo: z.string().describe('Everything that was ever committed lies before this LSN.'),
    nextXid: z.string().describe('As long as it stays, nothing has been written.'),
    locked: z.array(z.string()).describe('Roles that may not log in any more.'),
  }),
  timeoutMs: 2 * 60_000,
  async plan(context) {
    const { world, run, signal } = context;
    const name = memberOf(context);
    const url = databaseUrl(context, name, run.from);
    const [probe, missing] = await Promise.all([
      world.probes.database(url, signal),
      world.writers.missingRights(url, signal).catch(() => []),
    ]);
    return {
      target: `primary of ${name} at ${printableUrl(url)}`,
      present: probe.detail,
      will: [
        'make new transactions read-only, lock the roles of the applications, end all sessions: from here on nobody can write',
        'take that back if the move is given up before the promotion',
      ],
      problems: [
        ...(probe.session
          ? []
          : [{ what: `the primary of ${name} does not answer: ${probe.detail}`, next: 'Plan a failover instead.' }]),
        ...missing.map((right) => ({
          what: `the role of ${name} lacks a right: ${right}`,
          next: 'Grant it, or use a superuser.',
        })),
      ],
    };
  },
  // No `done`: doing it again changes nothing, and finds the position anew.
  async run(context) {
    const { world, run, signal, note } = context;
    const name = memberOf(context);
    const url = databaseUrl(context, name, run.from);
    const { flushedTo, nextXid, locked, superusers, workers, endedSessions } = await world.writers.quiesce(
      url,
      run.id,
      signal,
    );
    note(
      `${name}: ${endedSessions} sessions ended; locked out: ${locked.join(', ') || 'no role'}; everything up to ${flushedTo} is on its disk`,
    );
    if (superusers.length > 0)
      note(`${name}: only people keep these from writing: superusers ${superusers.join(', ')}`);
    if (workers.length > 0) note(`${name}: these background workers may write: ${workers.join(', ')}`);
    const { loud, refusal } = await world.writers.look(url, signal);
    if (loud.length > 0) {
      throw new DrError('refused', `the primary of ${name} does not stay quiet: ${loud.join('; ')}`, {
        where: printableUrl(url),
        next: 'Stop what comes back, then give the same command again.',
        retryable: true,
      });
    }
    note(`${name}: a write was refused: ${refusal}`);
    return { flushedTo, nextXid, locked: [...locked] };
  },
  async undo(context) {
    const { world, run, signal, note } = context;
    const name = memberOf(context);
    const opened = await world.writers.reopen(databaseUrl(context, name, run.from), signal);
    note(`${name} accepts writes again at ${run.from}${opened.length > 0 ? `: ${opened.join(', ')} may log in` : ''}`);
  },
});
