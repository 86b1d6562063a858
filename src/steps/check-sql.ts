import { z } from 'zod';
import { DrError } from '../base/errors.ts';
import { formatDuration } from '../base/units.ts';
import { defineStep, runModes } from './contract.ts';
import { databasePlace, describePlace, memberOf } from './places.ts';

export const checkSql = defineStep({
  name: 'check.sql',
  summary: 'Check the recovered database: it answers, its pages are sound, the configured statements say yes',
  effect: 'none',
  modes: runModes,
  over: 'databases',
  params: z.object({
    sql: z
      .array(z.string().min(1))
      .default([])
      .describe('Further statements; the first column of the one row must be true or a non-zero number.'),
  }),
  outputs: z.object({ checks: z.number().describe('How many checks passed.') }),
  timeoutMs: 15 * 60_000,
  async plan(context, { sql = [] }) {
    const name = memberOf(context);
    const statements = [...(context.world.config.verification.checks[name] ?? []), ...sql];
    return {
      target: describePlace(databasePlace(context, name)),
      present: 'it is looked at once it is recovered',
      will:
        statements.length > 0
          ? statements.map((statement) => `ask: ${statement}`)
          : ['connect; there are no statements in verification.checks'],
      problems: [],
    };
  },
  async run(context, { sql }) {
    const name = memberOf(context);
    const place = databasePlace(context, name);
    const statements = [...(context.world.config.verification.checks[name] ?? []), ...sql];
    const results = await context.world.recovery.checkDatabase(place, statements, context.signal);
    for (const { ok, what, detail, ms } of results)
      context.note(`${name}: ${what}: ${ok ? 'ok' : 'FAILED'}${detail ? ` (${detail})` : ''} in ${formatDuration(ms)}`);
    const failed = results.filter(({ ok }) => !ok);
    if (results.length > 0 && failed.length === 0) return { checks: results.length };
    const what = failed.map((check) => `${check.what}: ${check.detail}`).join('; ');
    throw new DrError(
      'check-failed',
      results.length === 0 ? `nothing was checked of ${name}` : `the recovered ${name} is not right: ${what}`,
      {
        where: place.directory,
        next: 'Nothing has been promoted or redirected. Look at the data; choose an earlier moment with --at and --new, or correct the check.',
      },
    );
  },
});
