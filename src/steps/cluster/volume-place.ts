import { posix } from 'node:path';
import { DrError } from '../../base/errors.ts';
import type { ClusterObject } from '../../cluster/contract.ts';
import { showRef } from '../../cluster/contract.ts';
import type { Json } from '../../cluster/json.ts';
import type { WorkloadConfig } from '../../config/types.ts';
import { jsonAt, listAt, numberAt, textAt } from './fields.ts';
import { selectorOf, workloadRef } from './workload-state.ts';

/** Where in a StatefulSet the data directory of a database lies. */
export interface VolumePlace {
  readonly namespace: string;
  /** The claim of its first pod. */
  readonly claim: string;
  /** How the StatefulSet makes that claim; undefined for one that it only uses. */
  readonly template: Json | undefined;
  /** How the server's container mounts it: the Job does the same, so that every path means the same in both. */
  readonly mountPath: string;
  readonly subPath: string | undefined;
  readonly image: string;
  /** Of its pods. */
  readonly podSpec: Json;
  readonly container: Json;
}

/** Finds the volume by the data directory that `recover` names: the mount that it lies in. Throws `config` when there is none. */
export function volumePlace(entry: WorkloadConfig, object: ClusterObject, dataDirectory: string): VolumePlace {
  const podSpec = jsonAt(object, 'spec', 'template', 'spec');
  const mounts = listAt(podSpec, 'containers').flatMap((container) =>
    listAt(container, 'volumeMounts').map((mount) => ({ container, mount, path: textAt(mount, 'mountPath') ?? '' })),
  );
  const [found] = mounts
    .filter(({ path }) => path !== '' && !posix.relative(path, dataDirectory).startsWith('..'))
    .sort((a, b) => b.path.length - a.path.length);
  const shown = showRef(workloadRef(entry));
  if (found === undefined) {
    throw new DrError('config', `no volume of ${shown} is mounted where the data directory is`, {
      where: `${dataDirectory}; mounts: ${mounts.map(({ path }) => path).join(', ') || 'none'}`,
      next: 'Write as recover.SITE.dataDirectory what PGDATA is in its container, and keep that on a volume.',
    });
  }
  const name = textAt(found.mount, 'name') ?? '';
  const template = listAt(object, 'spec', 'volumeClaimTemplates').find(
    ({ metadata }) => textAt(metadata, 'name') === name,
  );
  const volume = listAt(podSpec, 'volumes').find((each) => each['name'] === name);
  const first = numberAt(object, 'spec', 'ordinals', 'start') ?? 0;
  const claim = template
    ? `${name}-${object.metadata.name}-${first}`
    : textAt(volume, 'persistentVolumeClaim', 'claimName');
  if (claim === undefined) {
    throw new DrError('config', `what ${shown} mounts at ${found.path} is no claim`, {
      where: `volume ${name}`,
      next: 'Keep the database on a PersistentVolumeClaim (volumeClaimTemplates).',
    });
  }
  return {
    namespace: entry.namespace,
    claim,
    template,
    mountPath: found.path,
    subPath: textAt(found.mount, 'subPath'),
    image: textAt(found.container, 'image') ?? '',
    podSpec,
    container: found.container,
  };
}

/** The claim as the StatefulSet would make it. */
export function claimObject(object: ClusterObject, { namespace, claim, template }: VolumePlace): ClusterObject {
  const texts = (key: string) =>
    Object.fromEntries(Object.entries(jsonAt(template, 'metadata', key)).map(([name, value]) => [name, String(value)]));
  const labels = { ...texts('labels'), ...labelsOf(object) };
  const annotations = texts('annotations');
  return {
    apiVersion: 'v1',
    kind: 'PersistentVolumeClaim',
    metadata: { name: claim, namespace, labels, annotations },
    spec: jsonAt(template, 'spec'),
  };
}

function labelsOf(object: ClusterObject): Record<string, string> {
  return Object.fromEntries(
    selectorOf(object)
      .split(',')
      .filter((term) => /^[^!=\s]+=/.test(term))
      .map((term): [string, string] => {
        const at = term.indexOf('=');
        return [term.slice(0, at), term.slice(at + 1)];
      }),
  );
}

/** The major version that the image's tag names: `postgres:17.2-bookworm` is 17; undefined when it names none. */
export function majorOf(image: string): number | undefined {
  const tag = /(?:^|\/)[^/@]*?(?:postgres|postgresql|postgis)[^/:@]*:v?(\d{2})(?:[.-]|$|@)/i.exec(image)?.[1];
  return tag === undefined ? undefined : Number(tag);
}
