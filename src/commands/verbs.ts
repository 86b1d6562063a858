import { DrError } from '../base/errors.ts';
import { configVerb } from './config-verb.ts';
import {
  type BackupOptions,
  type BackupsOptions,
  type DaemonOptions,
  type DoctorOptions,
  type HoldOptions,
  type InitOptions,
  type KeysOptions,
  parseAt,
  parseSince,
  type RestoreOptions,
  type RetentionOptions,
  type StatusOptions,
  type ValidateOptions,
  type VaultOptions,
  type VerifyOptions,
} from './options.ts';
import { runVerbs } from './run-verbs.ts';
import { atFlag, storage, type Verb, vaultFlag, verb } from './verb.ts';
import { readKeys, readVault, type Written, word, words } from './written.ts';

/** Every verb of dr, in the order of `dr --help`. */
export const verbs: readonly Verb[] = [
  verb<ValidateOptions>({
    name: 'validate',
    summary: 'check the configuration and show what it promises',
    description:
      'Reads the file, expands its references and checks every key and rule; then every runbook, also for the commands and notifications that it names. Connects to nothing.',
    arguments: [],
    flags: [],
    examples: ['dr validate', 'dr validate --config /etc/dr/dr.yaml --json'],
    failures: [],
    read: () => ({}),
    load: () => import('./validate.ts'),
  }),
  verb<InitOptions>({
    name: 'init',
    summary: 'rebuild configuration and runbooks from a vault, on an empty machine',
    description:
      'Every vault keeps the configuration file (with its ${…} references, never their values) and the runbooks of the active site. Needs no configuration; overwrites nothing.',
    arguments: [],
    flags: [
      ['--from <vault>', 's3://bucket/prefix, file:///dir or a path (required)'],
      ['--endpoint <url>', 'of a store that is not AWS'],
      ['--region <name>', 'of the bucket (default: $AWS_REGION)'],
      ['--to <dir>', 'folder to write into (default: config)'],
    ],
    examples: ['dr init --from s3://backups-west/dr --region eu-central-1 --identity identity.txt'],
    failures: ['not-found', ...storage, 'refused', 'local'],
    read: ({ flags }) => ({
      from: word(flags['from']) ?? '',
      endpoint: word(flags['endpoint']),
      region: word(flags['region']),
      to: word(flags['to']) ?? 'config',
    }),
    load: () => import('./init.ts'),
  }),
  verb<DoctorOptions>({
    name: 'doctor',
    summary: 'check everything the configuration names, and say how to mend it',
    description:
      'Tries every vault, database, folder, DNS record and program, with clock and rights, all at once. Changes nothing: what it stores in a vault to prove its rights lies under probes/ and is removed (what proves Object Lock, by the next run or by retention: it is locked for a minute). With --site it judges what that site needs on this machine.',
    arguments: [],
    flags: [],
    examples: ['dr doctor', 'dr doctor --site west --identity /secure/identity.txt'],
    failures: ['check-failed'],
    read: () => ({}),
    load: () => import('./doctor.ts'),
  }),
  verb<BackupOptions>({
    name: 'backup',
    summary: 'take a backup now, into all vaults',
    description: 'Without names, of every resource. Done means: each vault alone restores it.',
    arguments: [['[resource...]', 'names of databases, data or configuration']],
    flags: [
      ['--full', 'store everything anew, whatever earlier backups have'],
      ['--accept-new-system', 'the server of a database was created anew: begin a lineage of its own'],
      ['--if-none-since <time>', 'do nothing where a backup begun since then is there already'],
    ],
    examples: ['dr backup', 'dr backup orders uploads', 'dr backup orders --full'],
    failures: ['objective-broken', 'lease-held', 'not-found', 'unreachable', 'denied', 'refused', 'local'],
    read: (written) => ({
      resources: words(written.arguments[0]),
      full: written.flags['full'] === true,
      acceptNewSystem: written.flags['acceptNewSystem'] === true,
      ifNoneSinceMs: parseSince(word(written.flags['ifNoneSince'])),
    }),
    load: () => import('./backup.ts'),
  }),
  verb<BackupsOptions>({
    name: 'backups',
    summary: 'list the backups and what they can bring back',
    description: 'Reads the vaults, nothing else: it works on a machine that knows only the configuration.',
    arguments: [['[resource]', 'only of this resource']],
    flags: [vaultFlag],
    examples: ['dr backups', 'dr backups orders --vault west'],
    failures: ['not-found', ...storage],
    read: (written) => ({ resource: word(written.arguments[0]), vault: word(written.flags['vault']) }),
    load: () => import('./backups.ts'),
  }),
  verb<StatusOptions>({
    name: 'status',
    summary: 'are we safe: newest recovery point, RPO now, last verified, next run',
    description: 'The exit code is 4 when an objective is broken, so that a monitor can ask.',
    arguments: [],
    flags: [],
    examples: ['dr status', 'dr status --json'],
    failures: ['objective-broken', 'unreachable', 'denied'],
    read: () => ({}),
    load: () => import('./status.ts'),
  }),
  verb<RestoreOptions>({
    name: 'restore',
    summary: 'bring a resource back into an empty folder',
    description:
      'Fetches from whichever vault answers, checks every byte, and fails rather than leave out anything. Nothing of production is touched.',
    arguments: [['<resource>', 'name of the resource']],
    flags: [
      ['--to <dir>', 'folder to restore into: empty, or not there yet (required)'],
      atFlag,
      vaultFlag,
      ['--start', 'database: recover with a server up to the target, check it, and stop it'],
      [
        '--wal-to <dir>',
        'database: lay it out for a stock server, which recovers by itself with WAL from here by "cp"',
      ],
      ['--backup <id>', 'database: begin with this backup'],
    ],
    examples: [
      'dr restore uploads --to /srv/restored',
      'dr restore orders --to /srv/pg --at "2026-11-23T05:00:00Z" --start',
      'dr restore orders --to /var/lib/postgresql/data/pgdata --wal-to /var/lib/postgresql/data/pgdata/dr_archive',
    ],
    failures: ['not-found', ...storage, 'refused', 'local', 'check-failed'],
    read: (written) => ({
      resource: word(written.arguments[0]) ?? '',
      to: word(written.flags['to']) ?? '',
      at: parseAt(word(written.flags['at']) ?? 'latest', written.nowMs),
      vault: word(written.flags['vault']),
      start: written.flags['start'] === true,
      walTo: word(written.flags['walTo']),
      backup: word(written.flags['backup']),
    }),
    load: () => import('./restore.ts'),
  }),
  configVerb,
  verb<VerifyOptions>({
    name: 'verify',
    summary: 'prove that the newest recovery point restores',
    description:
      'Restores to a scratch place, starts and checks it, measures it, keeps a report in the vaults and cleans up.',
    arguments: [['[resource]', 'only this resource']],
    flags: [vaultFlag, ['--if-none-since <time>', 'do nothing where a verification begun since then has succeeded']],
    examples: ['dr verify', 'dr verify orders --vault west'],
    failures: ['check-failed', 'lease-held', 'not-found', ...storage, 'local'],
    read: (written) => ({
      resource: word(written.arguments[0]),
      vault: word(written.flags['vault']),
      ifNoneSinceMs: parseSince(word(written.flags['ifNoneSince'])),
    }),
    load: () => import('./verify.ts'),
  }),
  verb<RetentionOptions>({
    name: 'retention',
    summary: 'show what retention would delete, or delete it',
    description: 'Never deletes what a kept backup needs, the last good backups, or anything under hold.',
    arguments: [],
    flags: [['--apply', 'delete it; otherwise it is only shown']],
    examples: ['dr retention', 'dr retention --apply'],
    failures: ['lease-held', 'unreachable', 'denied', 'corrupt', 'refused'],
    read: (written) => ({ apply: written.flags['apply'] === true }),
    load: () => import('./retention.ts'),
  }),
  verb<HoldOptions>({
    name: 'hold',
    summary: 'keep everything: nothing is deleted in any vault until the hold is cleared',
    description:
      'set: declares an incident, with its reason. clear: ends one hold, or all that stand. list: shows those that stand. A failover sets one by itself.',
    arguments: [
      ['<action>', 'set, clear or list'],
      ['[id]', 'clear only this hold'],
    ],
    flags: [['--reason <text>', 'set: why, for whoever finds that nothing is deleted any more']],
    examples: ['dr hold set --reason "orders corrupted, INC-42"', 'dr hold list', 'dr hold clear'],
    failures: ['not-found', 'unreachable', 'denied'],
    read: readHold,
    load: () => import('./hold.ts'),
  }),
  verb<VaultOptions>({
    name: 'vault',
    summary: 'show what the vaults hold, find damage and mend it, begin a lost vault anew',
    description:
      'list: what each vault holds and lacks. check: looks at every object, names what is missing, damaged, hidden from listings or foreign and which backups and recoveries it touches; changes nothing. repair: reads everything, mends from the other vaults what the check finds, and says what no vault can bring back; foreign objects are left alone. The daemon does both by itself (daemon.vaultCheck). enrol: proves the place and makes it a vault, although one was enrolled there before and is gone; the daemon copies into it what the others hold. New vaults need no command: the first backup enrols them. None needs an identity.',
    arguments: [
      ['<action>', 'list, check, repair or enrol'],
      ['[name]', 'name of a vault in the configuration (check and repair: default all of them)'],
    ],
    flags: [
      ['--vault <name>', 'the same as [name]'],
      [
        '--read-data',
        'check: compare all content with its SHA-256, too, and open it where an identity is given or nothing is encrypted',
      ],
      ['--sample <share>', 'check: with --read-data, only this share of the content (5%)'],
      ['--seed <word>', 'check: which share; the same word chooses the same (default: the day)'],
    ],
    examples: [
      'dr vault list',
      'dr vault check',
      'dr vault check west --read-data --sample 5%',
      'dr vault repair --vault west',
    ],
    failures: ['lease-held', 'not-found', 'corrupt', 'unreachable', 'denied', 'refused', 'local'],
    read: readVault,
    load: () => import('./vault.ts'),
  }),
  verb<KeysOptions>({
    name: 'keys',
    summary: 'show who can open the backups, and change it for those that exist',
    description:
      'list: recipients, how many data keys each opens, and which no configured recipient opens. rotate: wraps every data key for the recipients (and the KMS key) that the configuration names now, without touching data; needs an identity that opens them now. Killed, it goes on when it is repeated; a vault that is away gets the new wraps from the daemon when it is back. With --remove-old the older wraps go as well, where an identity that was given opens the new ones: put the old and the new identity into one file. Whoever had an old identity and a copy of the vault can still read that copy.',
    arguments: [['<action>', 'list or rotate']],
    flags: [['--remove-old', 'rotate: remove the wraps for former recipients, too (not while a hold stands)']],
    examples: [
      'dr keys list',
      'dr keys rotate --identity /secure/identities.txt',
      'dr keys rotate --remove-old --identity /secure/identities.txt',
    ],
    failures: ['lease-held', ...storage, 'conflict', 'refused'],
    read: readKeys,
    load: () => import('./keys.ts'),
  }),
  ...runVerbs,
  verb<DaemonOptions>({
    name: 'daemon',
    summary: 'take backups, receive WAL, verify and clean up, on schedule',
    description:
      'Runs until it is told to stop (SIGTERM), then finishes what must not be left half done. SIGHUP reads the configuration again.',
    arguments: [],
    flags: [],
    examples: ['dr daemon --site east'],
    failures: ['denied', 'refused', 'conflict', 'local'],
    read: () => ({}),
    load: () => import('./daemon.ts'),
  }),
];

function readHold({ arguments: given, flags }: Written): HoldOptions {
  const [action, id] = [word(given[0]), word(given[1])];
  const reason = word(flags['reason'])?.trim();
  if (action !== 'clear' && id !== undefined) {
    throw new DrError('usage', `dr hold ${action} takes no id`, { next: 'Run "dr hold --help" to see what it takes.' });
  }
  switch (action) {
    case 'set':
      if (reason) return { action, reason };
      throw new DrError('usage', 'a hold needs its reason', { next: 'Add --reason "what happened".' });
    case 'clear':
      return { action, id };
    case 'list':
      return { action };
    default:
      throw new DrError('usage', `dr hold ${action} is not known`, { next: 'Say set, clear or list.' });
  }
}
