import type { ClusterObject } from './contract.ts';
import { isJson, type Json } from './json.ts';

/** Labels and annotations of Jobs that dr makes. */
export const jobLabels = {
  site: 'dr.io/site',
  verb: 'dr.io/verb',
  resource: 'dr.io/resource',
  occurrence: 'dr.io/occurrence',
} as const;

/** What a Job is made of besides the daemon's own pod. */
export interface JobPlan {
  readonly namespace: string;
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
  /** Arguments of dr, from the verb on. */
  readonly args: readonly string[];
  readonly image: string | undefined;
  readonly serviceAccount: string | undefined;
  readonly env: readonly Json[];
  readonly requests: Readonly<Record<string, string>> | undefined;
  readonly limits: Readonly<Record<string, string>> | undefined;
  readonly nodeSelector: Readonly<Record<string, string>> | undefined;
  readonly tolerations: readonly object[];
  readonly claims: ReadonlyArray<{
    readonly claim: string;
    readonly path: string;
    readonly subPath?: string | undefined;
    readonly readOnly: boolean;
  }>;
  /** Folder of its own for what it writes in passing. */
  readonly scratch: { readonly path: string; readonly sizeLimit: string | undefined } | undefined;
  readonly runAsUser: number | undefined;
  readonly runAsGroup: number | undefined;
  readonly ttlSeconds: number;
  /** It waits until what it reads is there. */
  readonly suspended: boolean;
}

/** Kinds of volumes that a Job has like the daemon: what they hold is settings. Claims and host paths hold data, and are named where needed. */
const copied = ['configMap', 'secret', 'downwardAPI', 'csi', 'emptyDir', 'projected'];

/** The Job: the daemon's own pod as the pattern of image, environment and settings, with the restricted security of Kubernetes. */
export function jobObject(pod: ClusterObject, plan: JobPlan): ClusterObject {
  const own = isJson(pod['spec']) ? pod['spec'] : {};
  const containers = listOf(own['containers']);
  const container = containers.find(({ name }) => name === 'dr') ?? containers[0] ?? {};
  const taken = new Set([...plan.claims.map(({ path }) => path), ...(plan.scratch ? [plan.scratch.path] : [])]);
  const volumes = listOf(own['volumes']).filter(isSetting);
  const names = new Set(volumes.map(({ name }) => name));
  const mounts = listOf(container['volumeMounts']).filter(
    ({ name, mountPath }) => names.has(name) && !taken.has(String(mountPath)),
  );
  const claims = plan.claims.map(({ claim, path, subPath, readOnly }, i) => ({
    // Read-only in the volume as well: else the owner of every file would be set to the group of the pod.
    volume: { name: `claim-${i}`, persistentVolumeClaim: { claimName: claim, readOnly } },
    mount: { name: `claim-${i}`, mountPath: path, readOnly, ...(subPath !== undefined && { subPath }) },
  }));
  const folders = [
    ...(plan.scratch ? [{ name: 'job-scratch', path: plan.scratch.path, sizeLimit: plan.scratch.sizeLimit }] : []),
    ...(mounts.some(({ mountPath }) => mountPath === '/tmp') || taken.has('/tmp')
      ? []
      : [{ name: 'job-tmp', path: '/tmp', sizeLimit: undefined }]),
  ];
  const labels = { ...plan.labels, ...ownLabels(pod) };
  const template = {
    metadata: { labels, annotations: plan.annotations },
    spec: {
      restartPolicy: 'Never',
      automountServiceAccountToken: false,
      enableServiceLinks: false,
      terminationGracePeriodSeconds: 30,
      serviceAccountName: plan.serviceAccount ?? own['serviceAccountName'],
      ...pick(own, [
        'imagePullSecrets',
        'priorityClassName',
        'runtimeClassName',
        'hostAliases',
        'dnsConfig',
        'dnsPolicy',
      ]),
      nodeSelector: plan.nodeSelector ?? own['nodeSelector'],
      tolerations: [...userTolerations(own), ...plan.tolerations],
      securityContext: podSecurity(own, plan),
      containers: [
        {
          name: 'dr',
          image: plan.image ?? container['image'],
          ...pick(container, ['imagePullPolicy', 'workingDir', 'envFrom']),
          ...commandOf(container, plan.args),
          env: environment(listOf(container['env']), plan.env),
          resources: { ...pick(plan, ['requests', 'limits']) },
          securityContext: {
            allowPrivilegeEscalation: false,
            readOnlyRootFilesystem: true,
            runAsNonRoot: true,
            capabilities: { drop: ['ALL'] },
          },
          terminationMessagePath: '/dev/termination-log',
          terminationMessagePolicy: 'FallbackToLogsOnError',
          volumeMounts: [
            ...mounts,
            ...claims.map(({ mount }) => mount),
            ...folders.map(({ name, path }) => ({ name, mountPath: path })),
          ],
        },
      ],
      volumes: [
        ...volumes.filter(({ name }) => mounts.some((mount) => mount['name'] === name)),
        ...claims.map(({ volume }) => volume),
        ...folders.map(({ name, sizeLimit }) => ({ name, emptyDir: sizeLimit === undefined ? {} : { sizeLimit } })),
      ],
    },
  };
  return {
    apiVersion: 'batch/v1',
    kind: 'Job',
    metadata: { name: plan.name, namespace: plan.namespace, labels, annotations: plan.annotations },
    spec: {
      // Whether and when it is tried again is the scheduler's part; only pods that the cluster itself ended are replaced.
      backoffLimit: 0,
      podFailurePolicy: {
        rules: [{ action: 'Ignore', onPodConditions: [{ type: 'DisruptionTarget', status: 'True' }] }],
      },
      podReplacementPolicy: 'Failed',
      ttlSecondsAfterFinished: plan.ttlSeconds,
      suspend: plan.suspended,
      template: JSON.parse(JSON.stringify(template)),
    },
  };
}

/** Where the daemon's container says `daemon`, a Job says its own verb; other arguments (--identity, --config) stay. */
function commandOf(container: Json, args: readonly string[]): Json {
  const command = texts(container['command']);
  const given = texts(container['args']).filter((word) => word !== 'daemon');
  const program = command.filter((word) => word !== 'daemon');
  return { ...(program.length > 0 && { command: program }), args: [...given, ...args] };
}

/** The daemon's labels tell network policies and people whose pod it is; those that select the daemon itself are not taken. */
function ownLabels({ metadata }: ClusterObject): Record<string, string> {
  const wanted = [
    'app.kubernetes.io/name',
    'app.kubernetes.io/instance',
    'app.kubernetes.io/version',
    'app.kubernetes.io/part-of',
  ];
  const own = Object.entries(metadata.labels ?? {}).filter(([key]) => wanted.includes(key));
  return {
    'app.kubernetes.io/name': 'dr',
    ...Object.fromEntries(own),
    'app.kubernetes.io/component': 'job',
    'app.kubernetes.io/managed-by': 'dr',
  };
}

function podSecurity(own: Json, { runAsUser, runAsGroup }: JobPlan): Json {
  const daemon = isJson(own['securityContext']) ? own['securityContext'] : {};
  const user =
    runAsUser ?? (typeof daemon['runAsUser'] === 'number' && daemon['runAsUser'] > 0 ? daemon['runAsUser'] : 1000);
  return {
    runAsNonRoot: true,
    runAsUser: user,
    runAsGroup: runAsGroup ?? daemon['runAsGroup'] ?? user,
    fsGroup: daemon['fsGroup'] ?? user,
    fsGroupChangePolicy: 'OnRootMismatch',
    supplementalGroups: daemon['supplementalGroups'],
    seccompProfile: { type: 'RuntimeDefault' },
  };
}

/** What a later one names replaces an earlier one. */
function environment(daemon: readonly Json[], job: readonly Json[]): readonly Json[] {
  const names = new Set(job.map(({ name }) => name));
  return [...daemon.filter(({ name }) => !names.has(name)), ...job];
}

function isSetting(volume: Json): boolean {
  const { projected } = volume;
  // Tokens are put into each pod by the cluster itself.
  const hasToken =
    isJson(projected) && listOf(projected['sources']).some((source) => isJson(source['serviceAccountToken']));
  return !hasToken && copied.some((kind) => isJson(volume[kind]));
}

/** Kubernetes adds two of its own to every pod. */
function userTolerations(own: Json): readonly Json[] {
  return listOf(own['tolerations']).filter(({ key }) => !String(key).startsWith('node.kubernetes.io/'));
}

function pick(from: object, keys: readonly string[]): Json {
  return Object.fromEntries(Object.entries(from).filter(([key, value]) => keys.includes(key) && value !== undefined));
}

function listOf(value: unknown): readonly Json[] {
  return Array.isArray(value) ? value.filter((each) => isJson(each)) : [];
}

function texts(value: unknown): readonly string[] {
  return Array.isArray(value) ? value.map(String) : [];
}
