import { withQuiet } from './cadence.ts';
import type { ConfigFile } from './schema.ts';
import type { Config, DirectoryConfig, KeepRules, ObjectsConfig } from './types.ts';

/** Data sets and configurations of the file. */

type Written = ConfigFile['configuration'][string];

/** How long objects of a cluster rest after a change before they are backed up, where the file does not say: changes come in bursts. */
const OBJECTS_QUIET_MS = 10_000;

/** Folders of data, folders of configuration, and configuration that lies in a cluster. */
export function buildFiles(file: ConfigFile): Pick<Config, 'data' | 'configuration' | 'objects'> {
  const { keepAtLeast } = file.backup;
  const data: Record<string, DirectoryConfig> = {};
  const configuration: Record<string, DirectoryConfig> = {};
  const objects: Record<string, ObjectsConfig> = {};
  for (const [name, { recover, path, ...rest }] of Object.entries(file.data)) {
    data[name] = { ...common(name, rest, keepAtLeast), kind: 'data', path, recover };
  }
  for (const [name, { recover, path, kubernetes, ...rest }] of Object.entries(file.configuration)) {
    const shared = common(name, rest, keepAtLeast);
    if (path !== undefined) {
      configuration[name] = {
        ...shared,
        kind: 'configuration',
        path,
        recover: ofEach(recover, 'path', (to) => ({ path: to })),
      };
    } else if (kubernetes) {
      objects[name] = {
        ...shared,
        kind: 'configuration',
        schedule: withQuiet(rest.schedule, OBJECTS_QUIET_MS),
        select: {
          namespaces: kubernetes.namespaces,
          selector: kubernetes.selector,
          clusterObjects: kubernetes.clusterObjects,
          kinds: kubernetes.kinds,
          secrets: kubernetes.secrets,
        },
        recover: ofEach(recover, 'kubernetes', (target) => target),
      };
    }
  }
  return { data, configuration, objects };
}

function common(
  name: string,
  {
    schedule,
    retention,
    rpo,
    exclude,
    allowEmpty,
  }: Pick<Written, 'schedule' | 'retention' | 'rpo' | 'exclude' | 'allowEmpty'>,
  keepAtLeast: number,
) {
  return {
    name,
    schedule,
    retentionMs: retention.age,
    keep: buildKeep(retention, keepAtLeast),
    rpoMs: rpo,
    exclude,
    allowEmpty,
  };
}

/** The sites that say `key`; that each says the right one is checked before. */
function ofEach<Key extends 'path' | 'kubernetes', Out>(
  recover: Written['recover'],
  key: Key,
  build: (value: NonNullable<Written['recover'][string][Key]>) => Out,
): Record<string, Out> {
  const built: Record<string, Out> = {};
  for (const [site, target] of Object.entries(recover)) {
    const value = target[key];
    if (value !== undefined) built[site] = build(value);
  }
  return built;
}

/** A field of the short form of a retention is as one that is left out of the long form. */
type Retention = Extract<Written['retention'], { daily?: unknown }>;

export function buildKeep(retention: Retention, keepAtLeast: number): KeepRules {
  const { last, daily, weekly, monthly, yearly, timeZone } = retention;
  return { last: last ?? keepAtLeast, daily, weekly, monthly, yearly, timeZone };
}
