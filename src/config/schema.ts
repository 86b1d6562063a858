import { z } from 'zod';
import { cadenceForms } from './cadence.ts';
import { clusterAccess, clusterObjects, clusterTarget } from './cluster-schema.ts';
import { executor, leader } from './executor-schema.ts';
import { objectLock } from './object-lock.ts';
import {
  absolutePath,
  cadence,
  databaseUrl,
  duration,
  flag,
  httpUrl,
  listenAddress,
  name,
  size,
  someText,
  timeZone,
  vaultUrl,
  whole,
} from './scalars.ts';
import { commands, notifications } from './schema-tools.ts';
import { credentials, traffic, triggers } from './traffic-schema.ts';
import { vaultCheck } from './vault-check-schema.ts';
import { gitops, workload } from './workload-schema.ts';

/**
 * The shape of the configuration file, key by key. This one table gives the types, the defaults, the JSON schema and the
 * reference in `docs/configuration.md`: what is described here is described everywhere.
 */

const vault = z.strictObject({
  region: someText('the region the store lies in').describe('Region the store lies in, for example eu-west-1.'),
  url: vaultUrl().describe('s3://bucket/prefix or file:///dir.'),
  endpoint: httpUrl().optional().describe('URL of an S3 service other than AWS.'),
  forcePathStyle: flag()
    .prefault(false)
    .describe('True = bucket in the path, as most S3 services other than AWS want.'),
  credentials,
  objectLock,
});

const site = z.strictObject({
  region: someText('the region of the site').describe('Region the site runs in.'),
  vault: someText('the name of a vault').describe('The vault that lies in the region of this site.'),
  cluster: clusterAccess.optional().describe('The Kubernetes cluster of this site; {} = the one that dr runs in.'),
});

const kms = z.strictObject({
  keyId: someText('the ARN of a KMS key').describe(
    'ARN of a symmetric key (arn:aws:kms:…:key/…), best of a multi-Region key (mrk-…).',
  ),
  region: someText('a region').optional().describe('Region of that key; default: the one in the ARN.'),
  replicas: z
    .array(someText('a region'))
    .prefault([])
    .describe('Regions where replicas of a multi-Region key lie: asked when its own region does not answer.'),
  endpoint: httpUrl().optional().describe('URL of a KMS other than AWS.'),
  credentials,
});

const databaseTarget = z.strictObject({
  dataDirectory: absolutePath().describe(
    'Data directory of the recovered server; must be empty or absent when recovering.',
  ),
  port: whole(1, 65_535).prefault(5432).describe('Port of the recovered server.'),
  listen: someText('an address').prefault('127.0.0.1').describe('Address the recovered server listens on ("*" = all).'),
  url: databaseUrl()
    .optional()
    .describe("How clients of that site connect; default: the active site's URL with this listen address and port."),
  user: someText('a user name')
    .optional()
    .describe(
      'Operating system user that runs the server when dr runs as root; default: owner of the data directory, else postgres.',
    ),
  parameters: z
    .record(
      z.string().regex(/^[a-z][a-z0-9_.]*$/, { error: 'is no PostgreSQL parameter name' }),
      z
        .union([z.string(), z.number(), z.boolean()], { error: 'must be text, a number, true or false' })
        .transform(String),
    )
    .prefault({})
    .describe('PostgreSQL settings of the recovered server, over those of the original.'),
});

const kept = (what: string) => whole(1, 10_000).optional().describe(what);

/** `30 days`, or the long form; both give the long one. What any rule keeps is kept. */
const retention = (age: string, what: string) =>
  z
    .union(
      [
        duration().transform((ms) => ({ age: ms, timeZone: 'UTC' })),
        z.strictObject({
          age: duration().prefault(age).describe('Everything younger is kept.'),
          last: kept('So many of the newest good backups are kept whatever their age; default: backup.keepAtLeast.'),
          daily: kept('Of so many of the last days that have a good backup, the newest one is kept.'),
          weekly: kept('The same of weeks (ISO 8601: Monday to Sunday).'),
          monthly: kept('The same of months.'),
          yearly: kept('The same of years.'),
          timeZone: timeZone().prefault('UTC').describe('Where days, weeks, months and years begin at midnight.'),
        }),
      ],
      { error: `must be a length of time like ${age}, or rules: { age: ${age}, monthly: 12, yearly: 3 }` },
    )
    .prefault(age)
    .describe(`${what} In the long form also by rules of the calendar: { age: ${age}, monthly: 12, yearly: 3 }.`);

const database = z.strictObject({
  url: databaseUrl().describe(
    "The active site's server, with replication rights: postgresql://user@host:5432/database. Write secrets as ${NAME}.",
  ),
  schedule: cadence().prefault('every 6 hours').describe('When a base backup is taken.'),
  retention: retention('30 days', 'How long backups and their WAL are kept: any moment of this time can be recovered.'),
  rpo: duration().optional().describe('Most that may be lost of this database; default: objectives.rpo.'),
  wal: z
    .strictObject({
      enabled: flag().prefault(true).describe('False = base backups only: then the schedule alone must meet the RPO.'),
      flushEvery: duration().prefault('5s').describe('How soon committed changes are in the vaults.'),
      slot: z
        .string({ error: 'must be the name of a replication slot' })
        .regex(/^[a-z0-9_]{1,63}$/, { error: 'slot names have up to 63 lower-case letters, digits and "_"' })
        .optional()
        .describe('Physical replication slot; default: dr_ and the name of the database.'),
      durable: z
        .enum(['all', 'any'])
        .prefault('all')
        .describe('WAL is acknowledged to the server when it is in all vaults, or in any one.'),
    })
    .prefault({})
    .describe('Continuous archiving of the write-ahead log: what makes an RPO of seconds.'),
  recover: z.record(name(), databaseTarget).prefault({}).describe('Where each other site brings it up, by site.'),
});

const directory = (schedule: string, age: string, what: string) =>
  z.strictObject({
    path: absolutePath().describe(`Folder at the active site that holds the ${what}.`),
    schedule: cadence().prefault(schedule).describe('When a backup is taken.'),
    retention: retention(age, 'How long backups are kept.'),
    rpo: duration().optional().describe('Most that may be lost; default: what the schedule gives.'),
    exclude: z
      .array(someText('a pattern'))
      .prefault([])
      .describe('Glob patterns, relative to the path, of what is left out.'),
    allowEmpty: flag().prefault(false).describe('True = an empty folder is a good backup; otherwise it is a failure.'),
    recover: z
      .record(name(), z.strictObject({ path: absolutePath().describe('Folder that is filled at that site.') }))
      .prefault({})
      .describe('Where each other site brings it up, by site.'),
  });

/** Configuration is a folder or objects of a cluster. */
const configuration = directory('on change', '1 year', 'configuration')
  .extend({
    path: absolutePath().optional().describe('Folder at the active site that holds the configuration.'),
    kubernetes: clusterObjects
      .optional()
      .describe('Objects of the Kubernetes cluster of the active site (sites.NAME.cluster), instead of a folder.'),
    exclude: z
      .array(someText('a pattern'))
      .prefault([])
      .describe(
        'Glob patterns of what is left out, relative to the path; of objects: of their files (namespaces/*/core/ConfigMap/*-lock.yaml).',
      ),
    recover: z
      .record(
        name(),
        z.strictObject({
          path: absolutePath().optional().describe('Folder that is filled at that site.'),
          kubernetes: clusterTarget.optional().describe('How objects are brought up in the cluster of that site.'),
        }),
      )
      .prefault({})
      .describe('Where each other site brings it up, by site.'),
  })
  .refine((value) => (value.path === undefined) !== (value.kubernetes === undefined), {
    error: 'needs exactly one of path and kubernetes',
  })
  .superRefine(({ path, recover }, context) => {
    const key = path === undefined ? 'kubernetes' : 'path';
    for (const [site, target] of Object.entries(recover)) {
      if (Object.keys(target).join() === key) continue;
      const message = `must be { ${key}: … }, as what is recovered is ${key === 'path' ? 'a folder' : 'objects of a cluster'}`;
      context.addIssue({ code: 'custom', path: ['recover', site], message });
    }
  });

const httpCheck = z.strictObject({
  site: someText('the name of a site').describe('The site that serves it.'),
  url: httpUrl().describe('What is asked, with GET.'),
  status: whole(100, 599).prefault(200).describe('The expected status.'),
  contains: someText().optional().describe('Text that the answer must hold.'),
});

/** The whole file. Every object is strict: a key that is not known is an error. */
export const fileSchema = z.strictObject({
  version: z
    .literal(1, { error: 'must be 1: this dr reads version 1 of the configuration' })
    .describe('Version of this file format.'),
  objectives: z
    .strictObject({
      rto: duration().prefault('1h').describe('How long recovery may take.'),
      rpo: duration().prefault('15m').describe('How much of a database may be lost.'),
    })
    .prefault({})
    .describe('What is promised. A cadence that cannot meet it is refused.'),
  vaults: z.record(name(), vault).describe('Object stores for backups, by name; every backup goes to all of them.'),
  allowSingleRegion: flag()
    .prefault(false)
    .describe('True = accept that all copies lie in one region and are lost with it.'),
  sites: z.record(name(), site).describe('Places where the protected system can run, by name.'),
  active: someText('the name of a site').describe(
    'The site that is active at first; later the record in the vaults says which.',
  ),
  encryption: z
    .union(
      [
        z.literal('none'),
        z.strictObject({
          recipients: z
            .array(someText('an age public key'))
            .prefault([])
            .describe(
              'age public keys (age1…); at least one, unless there is kms. The identities that open the vaults are never in this file.',
            ),
          kms: kms.optional().describe('A key of AWS KMS that wraps the data keys too, or instead.'),
        }),
      ],
      { error: 'must be "recipients" with age public keys, "kms" with a key of AWS KMS, or the word: none' },
    )
    .describe(
      'Who can read the vaults: age public keys, a key of AWS KMS, or the word none, which stores everything readable.',
    ),
  databases: z.record(name(), database).prefault({}).describe('PostgreSQL databases (servers) to protect, by name.'),
  data: z
    .record(name(), directory('daily', '90 days', 'application data'))
    .prefault({})
    .describe('Folders of application data to protect, by name.'),
  configuration: z
    .record(name(), configuration)
    .prefault({})
    .describe('Configuration to protect: folders, or objects of a Kubernetes cluster, by name.'),
  traffic: z.record(name(), traffic).prefault({}).describe('Names that are pointed to the recovery site, by name.'),
  workloads: z
    .record(name(), workload)
    .prefault({})
    .describe('Workloads in the clusters of the sites that runbooks stop and start, by name.'),
  gitops: z
    .record(name(), gitops)
    .prefault({})
    .describe('Reconcilers that would undo what runbooks change, by name: they are paused first.'),
  verification: z
    .strictObject({
      schedule: z
        .union([z.literal('never').transform(() => undefined), cadence()], {
          error: `must be ${cadenceForms}, or never`,
        })
        .prefault('daily')
        .describe('When the newest recovery points are restored and checked; "never" = only by command.'),
      checks: z
        .record(name(), z.array(someText('an SQL statement')))
        .prefault({})
        .describe(
          'SQL by database; each statement returns one row whose first column is true or a number other than 0.',
        ),
    })
    .prefault({})
    .describe('Scheduled proof that the backups restore.'),
  validation: z
    .strictObject({
      http: z.array(httpCheck).prefault([]).describe('What a recovered site must answer.'),
      stabilize: duration()
        .prefault('1m')
        .describe('How long the answers must stay good after traffic was redirected.'),
      triggers,
    })
    .prefault({})
    .describe('What a failover checks before and after redirecting traffic.'),
  daemon: z
    .strictObject({
      listen: listenAddress()
        .prefault('127.0.0.1:8080')
        .describe('Where /health, /ready, /startup and /metrics are served.'),
      leader,
      retention: cadence().prefault('daily').describe('When retention is applied.'),
      applyRetention: flag()
        .prefault(true)
        .describe(
          'False = the daemon may not delete: `dr retention --apply` is run elsewhere, with other credentials, as often as "retention" says.',
        ),
      vaultCheck,
    })
    .prefault({})
    .describe('The daemon.'),
  executor,
  backup: z
    .strictObject({
      compressionLevel: whole(1, 19).prefault(3).describe('zstd level.'),
      partSize: size(2 ** 20, 2 ** 28, 'from 1 MiB to 256 MiB')
        .prefault('16MiB')
        .describe('Size of the stored objects.'),
      workers: whole(1, 256).optional().describe('Frames compressed at once; default: the number of cores.'),
      keepAtLeast: whole(1, 1000)
        .prefault(3)
        .describe('Newest good backups of each resource that retention never deletes.'),
    })
    .prefault({})
    .describe('Tuning of backups.'),
  postgresql: z
    .strictObject({
      binaries: z
        .array(absolutePath())
        .prefault([])
        .describe('Folders with PostgreSQL programs (bin), looked into before the usual places.'),
    })
    .prefault({})
    .describe('PostgreSQL programs for restores and verification.'),
  commands,
  notifications,
  scratch: absolutePath()
    .optional()
    .describe(
      "Folder for scratch restores and for what the next backups are compared with (keep it across restarts); default: a folder of this user in the system's temporary folder.",
    ),
  runbooks: someText('a path')
    .optional()
    .describe(
      'Folder of your runbooks, absolute or relative to this file: beside those that come with dr, and instead of one of the same name.',
    ),
});

/** The file as parsed: defaults filled in, lengths of time in milliseconds, names not yet checked against each other. */
export type ConfigFile = z.output<typeof fileSchema>;

/** JSON Schema (draft 7, what editors understand best) of the file as it is written. */
export function jsonSchema(): object {
  return {
    title: 'dr configuration',
    description:
      'Configuration of dr, the disaster recovery orchestrator. Text values may hold ${NAME} or ${NAME:-default} references to the environment.',
    ...z.toJSONSchema(fileSchema, { io: 'input', target: 'draft-7' }),
  };
}
