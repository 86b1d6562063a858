import { DrError } from '../base/errors.ts';
import { type FailoverOptions, parseAt, type RunsOptions } from './options.ts';

/** What stands on the command line after the verb, as the parser of arguments gives it. */
export interface Written {
  readonly arguments: readonly (string | readonly string[] | undefined)[];
  readonly flags: Readonly<Record<string, unknown>>;
  readonly nowMs: number;
}

/** A text that was given; undefined for anything else. */
export const word = (value: unknown): string | undefined => (typeof value === 'string' ? value : undefined);
/** The texts of an argument or flag that may stand several times. */
export const words = (value: unknown): readonly string[] => (Array.isArray(value) ? value.map(String) : []);

/** Throws `usage` for flags that exclude each other. */
export function readFailover({ flags, nowMs }: Written): FailoverOptions {
  if (flags['plan'] === true && flags['drill'] === true) {
    throw new DrError('usage', '--plan and --drill exclude each other', { next: 'Give one of them.' });
  }
  return {
    mode: flags['plan'] === true ? 'plan' : flags['drill'] === true ? 'drill' : 'failover',
    to: word(flags['to']),
    at: parseAt(word(flags['at']) ?? 'latest', nowMs),
    yes: flags['yes'] === true,
    acceptSplitBrain: word(flags['acceptSplitBrain']),
    reason: word(flags['reason']),
    fresh: flags['new'] === true,
  };
}

/** Throws `usage` for an answer to no run, or for two answers. */
export function readRuns({ arguments: given, flags }: Written): RunsOptions {
  const id = word(given[0]);
  const approve = word(flags['approve']);
  const refuse = word(flags['refuse']);
  const step = approve ?? refuse;
  if (approve !== undefined && refuse !== undefined) {
    throw new DrError('usage', '--approve and --refuse exclude each other', { next: 'Give one of them.' });
  }
  if (step !== undefined && id === undefined) {
    throw new DrError('usage', 'an answer needs the run it is for', {
      next: 'Name the run: dr runs ID --approve STEP.',
    });
  }
  const kind = approve === undefined ? 'refuse' : 'approve';
  const answer =
    step === undefined
      ? undefined
      : ({ step, kind, name: word(flags['as']), comment: word(flags['comment']) } as const);
  return { id, answer };
}
