import { isJson } from '../../../src/cluster/json.ts';

type Json = Readonly<Record<string, unknown>>;

const part = (value: unknown): Json => (isJson(value) ? value : {});
const list = (value: unknown): Json[] => (Array.isArray(value) ? value.map(part) : []);

/** What Docker is told so that a container runs as the first one of a pod would, under its security settings. */
export interface PodContainer {
  readonly Image: string;
  readonly Cmd: string[];
  readonly User: string;
  readonly Env: string[];
  readonly HostConfig: {
    readonly ReadonlyRootfs: boolean;
    readonly CapDrop: string[];
    readonly SecurityOpt: string[];
    readonly Privileged: boolean;
    readonly GroupAdd: string[];
    readonly Tmpfs: Record<string, string>;
    readonly Binds: string[];
    readonly Memory: number;
  };
}

/**
 * Translates the spec of a pod. `places`: folders of this machine that stand for the volumes that are not empty, by name; `env`: what
 * the Secrets of `envFrom` hold.
 */
export function asContainer(
  pod: Json,
  places: Readonly<Record<string, string>>,
  env: Readonly<Record<string, string>>,
): PodContainer {
  const security = part(pod['securityContext']);
  const [container = {}] = list(pod['containers']);
  const own = part(container['securityContext']);
  const volumes = list(pod['volumes']);
  const mounts = list(container['volumeMounts']);
  const empty = new Set(volumes.filter((volume) => 'emptyDir' in volume).map(({ name }) => name));
  const placeOf = (name: unknown) => {
    const place = places[String(name)];
    if (place === undefined) throw new Error(`there is no place for the volume ${String(name)}`);
    return place;
  };
  const memory = /^(\d+)Gi$/.exec(String(part(part(container['resources'])['limits'])['memory']))?.[1];
  if (memory === undefined) throw new Error('the pod has no limit of memory in Gi');
  return {
    Image: String(container['image']),
    Cmd: (container['args'] as string[] | undefined) ?? [],
    User: `${security['runAsUser']}:${security['runAsGroup']}`,
    Env: [
      ...list(container['env']).map(({ name, value }) => `${name}=${value ?? ''}`),
      ...Object.entries(env).map(([name, value]) => `${name}=${value}`),
    ],
    HostConfig: {
      ReadonlyRootfs: own['readOnlyRootFilesystem'] === true,
      CapDrop: (part(own['capabilities'])['drop'] as string[] | undefined) ?? [],
      SecurityOpt: own['allowPrivilegeEscalation'] === false ? ['no-new-privileges'] : [],
      Privileged: own['privileged'] === true,
      GroupAdd: [String(security['fsGroup'])],
      Tmpfs: Object.fromEntries(
        mounts
          .filter(({ name }) => empty.has(name))
          .map(({ mountPath }) => [String(mountPath), 'rw,noexec,nosuid,mode=1777']),
      ),
      Binds: mounts
        .filter(({ name }) => !empty.has(name))
        .map(({ name, mountPath, subPath, readOnly }) => {
          const source = subPath === undefined ? placeOf(name) : `${placeOf(name)}/${subPath}`;
          return `${source}:${mountPath}:${readOnly === true ? 'ro' : 'rw'}`;
        }),
      Memory: Number(memory) * 2 ** 30,
    },
  };
}
