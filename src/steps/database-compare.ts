import { z } from 'zod';
import { DrError } from '../base/errors.ts';
import { defineStep } from './contract.ts';
import { databasePlace, databaseUrl, memberOf } from './places.ts';

export const databaseCompare = defineStep({
  name: 'database.compare',
  summary: 'Ask the recovered and the living database the same questions, and show both answers to who decides',
  effect: 'none',
  modes: ['failover', 'switchover', 'failback'],
  over: 'databases',
  params: z.object({
    sql: z
      .array(z.string().min(1))
      .default([])
      .describe('Statements that return one row. Default: how many rows each of the 20 largest tables has, estimated.'),
  }),
  outputs: z.object({
    differences: z.array(z.string()).describe('Questions whose answers differ, with both.'),
  }),
  timeoutMs: 15 * 60_000,
  async plan(context) {
    const name = memberOf(context);
    return {
      target: databasePlace(context, name).directory,
      present: 'it is compared once it is recovered',
      will: [`ask it what ${name} at ${context.run.from} is asked, and show the differences`],
      problems: [],
    };
  },
  async run(context, { sql }) {
    const { world, run, signal, note } = context;
    const name = memberOf(context);
    const questions = sql.length > 0 ? sql : [TABLES];
    const recovered = await world.recovery.askDatabase(databasePlace(context, name), questions, signal);
    const living = await world.probes.answers(databaseUrl(context, name, run.from), questions, signal);
    if (living === undefined) {
      note(`${name} at ${run.from} does not answer: there is nothing to compare with`);
      return { differences: [] };
    }
    const differences: string[] = [];
    for (const [i, question] of questions.entries()) {
      const [here = '', there = ''] = [recovered[i], living[i]];
      if (here === there) note(`${name}: the same at both: ${question}`);
      else {
        differences.push(`${question}: recovered ${here}; at ${run.from} ${there}`);
        note(`${name}: ${question}: recovered: ${here}; at ${run.from}: ${there}`);
      }
    }
    if (recovered.every((answer) => answer === '')) {
      throw new DrError('check-failed', `the recovered ${name} answers nothing`, {
        where: databasePlace(context, name).directory,
        next: 'Look at the questions of database.compare in the runbook.',
      });
    }
    return { differences };
  },
});

/** One row, whatever there is: the estimated rows of the largest tables. */
const TABLES = `select coalesce(string_agg(format('%s %s', name, rows), ', ' order by name), 'no tables') from (
  select format('%I.%I', n.nspname, c.relname) as name, greatest(c.reltuples, 0)::bigint as rows
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where c.relkind in ('r', 'm') and n.nspname not in ('pg_catalog', 'information_schema')
  order by pg_relation_size(c.oid) desc limit 20) largest`;
