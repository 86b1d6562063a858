import { z } from 'zod';
import type { ExecutorConfig, LeaderConfig } from './daemon-types.ts';
import type { Findings } from './problems.ts';
import { absolutePath, duration, flag, name, someText, whole } from './scalars.ts';
import type { Config } from './types.ts';

/** Which replica of the daemon works, and where its work is done. */

/** Names of objects of Kubernetes (RFC 1123). */
const objectName = (what: string) =>
  z.string({ error: `must be the name of ${what}` }).regex(/^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/, {
    error: `must be the name of ${what}: lower-case letters, digits, "-" and "."`,
  });

const namespace = () => objectName('a namespace').max(63, { error: 'namespaces have up to 63 characters' });

export const leader = z
  .union(
    [
      z.enum(['automatic', 'never']),
      z.strictObject({
        namespace: namespace().optional().describe('Of the Lease; default: that of the pod.'),
        name: objectName('a Lease').optional().describe('Of the Lease; default: dr- and the name of the site.'),
        duration: duration()
          .refine((ms) => ms >= 3000 && ms <= 120_000 && ms % 1000 === 0, {
            error: 'must be whole seconds, from 3s to 2m',
          })
          .prefault('12s')
          .describe('After this long without a word from the leader another replica takes over.'),
      }),
    ],
    { error: 'must be automatic, never, or a Lease: { namespace: dr, name: dr-east }' },
  )
  .prefault('automatic')
  .describe(
    'Of several replicas at a site the one that holds the Lease works. automatic = in a pod whose site names its cluster as {} and whose account may write Leases; never = this daemon is the only one.',
  );

const quantities = () =>
  z
    .record(z.string(), z.union([z.string(), z.number()]).transform(String))
    .optional()
    .describe('{ cpu: 500m, memory: 512Mi }');

const toleration = z.strictObject({
  key: z.string().optional().describe('Taint that is tolerated; none = all.'),
  operator: z.enum(['Exists', 'Equal']).optional().describe('Default: Equal.'),
  value: z.string().optional().describe('Of the taint.'),
  effect: z.enum(['NoSchedule', 'PreferNoSchedule', 'NoExecute']).optional().describe('Default: every effect.'),
  tolerationSeconds: whole(0, 86_400).optional().describe('How long NoExecute is tolerated.'),
});

const volume = z.strictObject({
  claim: objectName('a PersistentVolumeClaim').describe(
    'The claim; it is mounted read-only at the path of the resource.',
  ),
  subPath: someText('a path').optional().describe('Folder of the volume that holds the resource.'),
  snapshot: z
    .strictObject({
      class: objectName('a VolumeSnapshotClass').optional().describe('Default: the default class of the driver.'),
      storageClass: objectName('a StorageClass').optional().describe('Of the claim that is made from the snapshot.'),
    })
    .optional()
    .describe('Read a CSI VolumeSnapshot instead of the volume: made for each backup and removed after it.'),
  runAsUser: whole(1, 2 ** 31 - 1)
    .optional()
    .describe('User id that can read everything there; default: that of the daemon.'),
  runAsGroup: whole(1, 2 ** 31 - 1)
    .optional()
    .describe('Group id, likewise.'),
});

const kubernetes = z.strictObject({
  namespace: namespace().optional().describe('Where the Jobs run; default: that of the pod.'),
  image: someText('an image').optional().describe("Default: that of the daemon's own pod."),
  serviceAccount: objectName('a ServiceAccount').optional().describe("Default: that of the daemon's own pod."),
  requests: quantities(),
  limits: quantities(),
  parallel: whole(1, 1000).prefault(4).describe('Most backups, and most verifications, at once.'),
  ttl: duration().prefault('1h').describe('How long finished Jobs and their logs are kept.'),
  patience: duration()
    .prefault('5m')
    .describe('A Job that has not begun after this long counts as failed, with the reason.'),
  nodeSelector: z.record(z.string(), z.string()).optional().describe('Labels of the nodes that run the Jobs.'),
  tolerations: z.array(toleration).prefault([]).describe('Taints that the Jobs tolerate.'),
  env: z
    .record(
      z.string().regex(/^[A-Za-z_][A-Za-z0-9_]*$/, { error: 'is no name of a variable' }),
      z.strictObject({
        secret: objectName('a Secret').describe('In the namespace of the Jobs.'),
        key: someText('a key').describe('Of the Secret.'),
      }),
    )
    .prefault({})
    .describe("Variables from Secrets, beside those of the daemon's own pod."),
  scratch: z
    .strictObject({
      claim: objectName('a PersistentVolumeClaim')
        .optional()
        .describe('Kept between Jobs, so that backups find what is unchanged; ReadWriteMany.'),
      sizeLimit: z
        .string()
        .optional()
        .describe('Of the empty folder that each Job gets where there is no claim: 50Gi.'),
    })
    .prefault({})
    .describe('The folder "scratch" of Jobs.'),
  volumes: z.record(name(), volume).prefault({}).describe('Volumes of application data, by name of the resource.'),
  mounts: z
    .array(
      z.strictObject({
        claim: objectName('a PersistentVolumeClaim').describe('The claim.'),
        path: absolutePath().describe('Where it is mounted.'),
        readOnly: flag().prefault(true).describe('False = the Jobs write there.'),
      }),
    )
    .prefault([])
    .describe('Further claims that every Job needs, such as one that holds a vault.'),
});

export const executor = z
  .union(
    [
      z.literal('local').transform(() => undefined),
      z
        .strictObject({ kubernetes: kubernetes.describe('Jobs; {} = all by default.') })
        .transform((both) => both.kubernetes),
    ],
    { error: 'must be local, or kubernetes with its settings: { kubernetes: {} }' },
  )
  .prefault('local')
  .describe(
    'Where the daemon does backups of databases and data, and verifications: local = in its own process; kubernetes = as Jobs of the same image. WAL and configuration stay in the daemon.',
  );

/** Names of the executor that must exist, and what cannot be. */
export function checkExecutor(config: Config, { wrong }: Findings): void {
  const { executor: jobs, databases, data, configuration } = config;
  const hasCluster = Object.values(config.sites).some(({ cluster }) => cluster !== undefined);
  if (jobs && !hasCluster) wrong(['executor', 'kubernetes'], 'no site names its cluster: write sites.NAME.cluster: {}');
  if (typeof config.daemon.leader === 'object' && !hasCluster) {
    wrong(['daemon', 'leader'], 'no site names its cluster: write sites.NAME.cluster: {}');
  }
  for (const resource of Object.keys(jobs?.volumes ?? {})) {
    const path = ['executor', 'kubernetes', 'volumes', resource];
    if (Object.hasOwn(data, resource)) continue;
    if (Object.hasOwn(databases, resource)) {
      wrong(path, 'is a database: it is read through its connection, not from a volume');
    } else if (Object.hasOwn(configuration, resource)) {
      wrong(path, 'is configuration: its folder is watched, so it is mounted in the daemon');
    } else wrong(path, `there is no data "${resource}"`);
  }
}

export function buildLeader(file: z.output<typeof leader>): LeaderConfig {
  if (typeof file === 'string') return file;
  return { namespace: file.namespace, name: file.name, durationMs: file.duration };
}

export function buildExecutor(file: z.output<typeof executor>): ExecutorConfig | undefined {
  if (file === undefined) return undefined;
  const { ttl: ttlMs, patience: patienceMs, scratch, volumes, ...same } = file;
  return {
    ...same,
    ttlMs,
    patienceMs,
    namespace: file.namespace,
    image: file.image,
    serviceAccount: file.serviceAccount,
    requests: file.requests,
    limits: file.limits,
    nodeSelector: file.nodeSelector,
    scratch: { claim: scratch.claim, sizeLimit: scratch.sizeLimit },
    volumes: Object.fromEntries(
      Object.entries(volumes).map(([resource, { claim, subPath, snapshot, runAsUser, runAsGroup }]) => [
        resource,
        {
          claim,
          subPath,
          snapshot: snapshot && { class: snapshot.class, storageClass: snapshot.storageClass },
          runAsUser,
          runAsGroup,
        },
      ]),
    ),
  };
}
