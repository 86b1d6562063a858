import type { FailoverOptions, RunsOptions } from './options.ts';
import { atFlag, storage, type Verb, verb } from './verb.ts';
import { readFailover, readRuns } from './written.ts';

/** What runs of runbooks have in common. */
const runFlags = [
  ['--plan', 'show every step with its targets; touch nothing'],
  ['--drill', 'recover in isolation, check, and clean up'],
  ['--to <site>', 'site that takes over (default: --site, else the only other one)'],
  ['--runbook <name>', 'another runbook than that of this name'],
  ['--yes', 'execute without asking'],
  ['--reason <text>', 'why, for the journal and the report'],
  ['--new', 'abandon an unfinished run and begin anew, instead of going on with it'],
  ['--abandon', 'give up an unfinished run: take back what can be taken back, and end it'],
] as const;
const moveFailures = [
  'objective-broken',
  'lease-held',
  'not-found',
  ...storage,
  'refused',
  'local',
  'check-failed',
] as const;

/** The verbs that execute runbooks, and that show what came of it. */
export const runVerbs: readonly Verb[] = [
  verb<FailoverOptions>({
    name: 'failover',
    summary: 'bring the system up at the recovery site and redirect traffic to it',
    description:
      'Executes the failover runbook, or another one for a lost site (--runbook). Killed at any point, the same command goes on where it stopped. --plan shows every step and touches nothing; --drill recovers beside production, redirects nothing and cleans up.',
    arguments: [],
    flags: [
      ...runFlags,
      atFlag,
      [
        '--accept-split-brain <name>',
        'go on although the old primary may still take writes; the name of who decides goes into the journal',
      ],
    ],
    examples: ['dr failover --plan', 'dr failover --drill --yes', 'dr failover --yes --identity /secure/identity.txt'],
    failures: moveFailures,
    read: (written) => readFailover('failover', written),
    load: () => import('./failover.ts'),
  }),
  verb<FailoverOptions>({
    name: 'switchover',
    summary: 'move the system to the other site, planned, without losing a transaction',
    description:
      'Executes the switchover runbook while the old site lives: restores there, makes the old primary quiet, replays its last byte, promotes, redirects. Until the promotion a failure takes everything back, and the old site works on; so does --abandon.',
    arguments: [],
    flags: runFlags,
    examples: ['dr switchover --plan --to west', 'dr switchover --to west --reason "maintenance of east"'],
    failures: moveFailures,
    read: (written) => readFailover('switchover', written),
    load: () => import('./failover.ts'),
  }),
  verb<FailoverOptions>({
    name: 'failback',
    summary: 'rebuild the old site and move the system back to it, without losing a transaction',
    description:
      'Executes the failback runbook at the site that was active before: puts aside what it held, rebuilds it from the vaults, and then is a switchover. Nothing fails back by itself.',
    arguments: [],
    flags: runFlags,
    examples: ['dr failback --plan --to east', 'dr failback --to east --reason "east is repaired"'],
    failures: moveFailures,
    read: (written) => readFailover('failback', written),
    load: () => import('./failover.ts'),
  }),
  verb<RunsOptions>({
    name: 'runs',
    summary: 'list the runs of runbooks, or show the report of one',
    description:
      'Reads the journals in the vaults. With --approve or --refuse it answers a step of a run that waits for a person; the answer is kept beside the journal.',
    arguments: [['[id]', 'the run to show']],
    flags: [
      ['--approve <step>', 'let the step begin'],
      ['--refuse <step>', 'keep the step from beginning; the run stops'],
      ['--as <name>', 'who answers, exactly as the runbook writes the name (default: the account)'],
      ['--comment <text>', 'what to record with the answer'],
      ['--report <form>', 'show the report as a document: markdown or html'],
    ],
    examples: [
      'dr runs',
      'dr runs 20261123T050102123Z-3f9a1c',
      'dr runs 20261123T050102123Z-3f9a1c --approve promote[orders] --as Ada',
      'dr runs 20261123T050102123Z-3f9a1c --report html > report.html',
    ],
    failures: ['not-found', ...storage, 'refused', 'conflict'],
    read: readRuns,
    load: () => import('./runs.ts'),
  }),
];
