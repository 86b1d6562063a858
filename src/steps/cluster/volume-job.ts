import { createHash } from 'node:crypto';
import type { ClusterObject } from '../../cluster/contract.ts';
import type { Json } from '../../cluster/json.ts';
import type { VolumeRestoreConfig } from '../../config/types.ts';
import { jsonAt, numberAt } from './fields.ts';
import type { VolumePlace } from './volume-place.ts';

/** dr's own user, where nothing says who the server runs as. */
const DR_USER = 1000;
const KEPT_SECONDS = 24 * 3600;

export interface VolumeJob {
  readonly name: string;
  readonly runId: string;
  readonly database: string;
  readonly site: string;
  readonly place: VolumePlace;
  readonly restore: VolumeRestoreConfig;
  readonly args: readonly string[];
}

/** Name of the Job of a run, database and round: always the same, so that a resumed run finds the one that it has begun. */
export function jobName(runId: string, database: string, round = 0): string {
  const digest = createHash('sha256').update(`${runId} ${database} ${round}`).digest('hex').slice(0, 10);
  const readable = database
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .slice(0, 40);
  return `dr-restore-${readable}-${digest}`;
}

/** The Job that fills the volume: the same mount as the server's, as the server's user, under the restricted Pod Security. */
export function volumeJob({ name, runId, database, site, place, restore, args }: VolumeJob): ClusterObject {
  const labels = {
    'app.kubernetes.io/name': 'dr',
    'app.kubernetes.io/component': 'restore',
    'app.kubernetes.io/managed-by': 'dr',
  };
  const { identity, environment, config, serviceAccount, image } = restore;
  const { podSpec, claim, mountPath, subPath } = place;
  const spec = {
    restartPolicy: 'Never',
    automountServiceAccountToken: false,
    enableServiceLinks: false,
    ...(serviceAccount !== undefined && { serviceAccountName: serviceAccount }),
    ...pick(podSpec, ['nodeSelector', 'tolerations', 'imagePullSecrets', 'priorityClassName']),
    securityContext: security(place),
    containers: [
      {
        name: 'dr',
        image,
        args: ['restore', database, ...args],
        env: [
          { name: 'DR_CONFIG', value: '/etc/dr/dr.yaml' },
          { name: 'DR_SITE', value: site },
          ...(identity === undefined ? [] : [{ name: 'DR_IDENTITY_FILE', value: '/etc/dr-identity/identity.txt' }]),
          { name: 'HOME', value: '/tmp' },
        ],
        ...(environment !== undefined && { envFrom: [{ secretRef: { name: environment } }] }),
        securityContext: {
          allowPrivilegeEscalation: false,
          readOnlyRootFilesystem: true,
          runAsNonRoot: true,
          capabilities: { drop: ['ALL'] },
        },
        terminationMessagePolicy: 'FallbackToLogsOnError',
        volumeMounts: [
          { name: 'data', mountPath, ...(subPath !== undefined && { subPath }) },
          { name: 'config', mountPath: '/etc/dr', readOnly: true },
          ...(identity === undefined ? [] : [{ name: 'identity', mountPath: '/etc/dr-identity', readOnly: true }]),
          { name: 'tmp', mountPath: '/tmp' },
        ],
      },
    ],
    volumes: [
      { name: 'data', persistentVolumeClaim: { claimName: claim } },
      { name: 'config', configMap: { name: config } },
      ...(identity === undefined ? [] : [{ name: 'identity', secret: { secretName: identity, defaultMode: 0o440 } }]),
      { name: 'tmp', emptyDir: {} },
    ],
  };
  return {
    apiVersion: 'batch/v1',
    kind: 'Job',
    metadata: { name, namespace: place.namespace, labels, annotations: { 'dr.io/run': runId } },
    spec: {
      // dr goes on where it was cut off, so a pod that was evicted is simply replaced.
      backoffLimit: 2,
      podReplacementPolicy: 'Failed',
      podFailurePolicy: {
        rules: [{ action: 'Ignore', onPodConditions: [{ type: 'DisruptionTarget', status: 'True' }] }],
      },
      ttlSecondsAfterFinished: KEPT_SECONDS,
      template: { metadata: { labels }, spec },
    },
  };
}

/** The user of the server where the pod says who that is. An image that begins as root gives its files to its user by itself. */
function security({ podSpec, container }: VolumePlace): Json {
  const said = (key: string) =>
    numberAt(container, 'securityContext', key) ?? numberAt(podSpec, 'securityContext', key);
  const user = said('runAsUser') || DR_USER;
  const group = said('runAsGroup') || user;
  return {
    runAsNonRoot: true,
    runAsUser: user,
    runAsGroup: group,
    fsGroup: numberAt(podSpec, 'securityContext', 'fsGroup') ?? group,
    fsGroupChangePolicy: 'OnRootMismatch',
    seccompProfile: { type: 'RuntimeDefault' },
    ...pick(jsonAt(podSpec, 'securityContext'), ['supplementalGroups', 'seLinuxOptions']),
  };
}

function pick(from: Json, keys: readonly string[]): Json {
  return Object.fromEntries(keys.flatMap((key) => (from[key] === undefined ? [] : [[key, from[key]]])));
}
