import { DrError } from '../base/errors.ts';
import { type FailoverOptions, type KeysOptions, parseAt, type RunsOptions, type VaultOptions } from './options.ts';

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
export function readFailover(verb: FailoverOptions['verb'], { flags, nowMs }: Written): FailoverOptions {
  const given = ['plan', 'drill', 'abandon'].filter((flag) => flags[flag] === true);
  if (given.includes('plan') && given.length > 1) {
    throw new DrError('usage', `--${given.join(' and --')} exclude each other`, { next: 'Give one of them.' });
  }
  if (flags['abandon'] === true && flags['new'] === true) {
    throw new DrError('usage', '--abandon and --new exclude each other', {
      next: '--abandon gives up an unfinished run; --new does that and begins another.',
    });
  }
  if (verb !== 'failover' && flags['at'] !== undefined && word(flags['at']) !== 'latest') {
    throw new DrError('usage', `a ${verb} loses nothing, so it goes to the latest moment`, { next: 'Leave out --at.' });
  }
  return {
    verb,
    mode: given.includes('plan') ? 'plan' : given.includes('drill') ? 'drill' : 'real',
    runbook: word(flags['runbook']),
    abandon: flags['abandon'] === true,
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
  const report = word(flags['report']);
  if (report !== undefined && report !== 'markdown' && report !== 'html') {
    throw new DrError('usage', `--report ${report} is no form of a report`, { next: 'Say markdown or html.' });
  }
  if (report !== undefined && (id === undefined || answer !== undefined)) {
    throw new DrError('usage', '--report shows one run', { next: 'Write: dr runs ID --report html > report.html' });
  }
  return { id, report, answer };
}

/** Throws `usage` for an unknown action, and for flags that do not go with it. */
export function readVault({ arguments: given, flags }: Written): VaultOptions {
  const action = word(given[0]);
  const [named, flagged] = [word(given[1]), word(flags['vault'])];
  if (named !== undefined && flagged !== undefined && named !== flagged) {
    throw new DrError('usage', `two vaults are named: ${named} and ${flagged}`, { next: 'Name one of them.' });
  }
  const name = named ?? flagged;
  const sample = word(flags['sample']);
  const seed = word(flags['seed']);
  const readData = flags['readData'] === true;
  if (action !== 'check' && (readData || sample !== undefined || seed !== undefined)) {
    throw new DrError('usage', '--read-data, --sample and --seed belong to dr vault check', {
      next: 'Leave them out: a repair reads everything.',
    });
  }
  if ((sample !== undefined && !readData) || (seed !== undefined && sample === undefined)) {
    throw new DrError('usage', '--sample needs --read-data, and --seed needs --sample', {
      next: 'Write: dr vault check --read-data --sample 5%.',
    });
  }
  switch (action) {
    case 'list':
      if (name === undefined) return { action };
      throw new DrError('usage', 'dr vault list shows all vaults', { next: 'Write: dr vault list' });
    case 'check':
      return { action, name, readData, share: readShare(sample), seed };
    case 'repair':
      return { action, name, readData: true, share: 1, seed: undefined };
    case 'enrol':
      if (name !== undefined) return { action, name };
      throw new DrError('usage', 'enrol needs the name of the vault', { next: 'Write: dr vault enrol NAME' });
    default:
      throw new DrError('usage', `dr vault does not know "${String(action)}"`, {
        next: 'Say list, check, repair or enrol.',
      });
  }
}

/** Throws `usage` for an unknown action. */
export function readKeys({ arguments: given, flags }: Written): KeysOptions {
  const action = word(given[0]);
  const removeOld = flags['removeOld'] === true;
  if (action === 'rotate') return { action, removeOld };
  if (action === 'list' && !removeOld) return { action };
  throw new DrError(
    'usage',
    action === 'list' ? 'dr keys list removes nothing' : `dr keys ${String(action)} is not known`,
    {
      next: 'Write: dr keys list, or dr keys rotate [--remove-old].',
    },
  );
}

/** `5%`, `0.5 %`; everything when absent. */
function readShare(text: string | undefined): number {
  if (text === undefined) return 1;
  const percent = Number(/^\s*(\d+(?:\.\d+)?)\s*%\s*$/.exec(text)?.[1]);
  if (percent > 0 && percent <= 100) return percent / 100;
  throw new DrError('usage', `--sample ${text} is no share`, { next: 'Give percent, above 0 and up to 100: 5%.' });
}
