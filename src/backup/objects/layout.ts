import { parse } from 'yaml';
import { z } from 'zod';
import { DrError } from '../../base/errors.ts';
import { yamlText } from './yaml-text.ts';

/**
 * How objects of a cluster lie in a backup of configuration, as files:
 *
 * - `cluster/<group>/<Kind>/<name>.yaml` for kinds that live in no namespace, `namespaces/<namespace>/<group>/<Kind>/<name>.yaml` for all
 *   others: one object each, without what the cluster itself writes into it. The core group is called `core`.
 * - `managers/<the same path>`: who set its fields (`ManagersRecord`).
 * - `dr-cluster.yaml`: what was taken from where, and what was not (`ClusterSummary`).
 */

export const summaryPath = 'dr-cluster.yaml';
const managersFolder = 'managers/';
/** What no real group is called. */
const coreFolder = 'core';

/** An object by what its path says. The version of its group is in the file. */
export interface ObjectKey {
  /** `apps`; empty for the core group. */
  readonly group: string;
  readonly kind: string;
  /** Absent for kinds that live in no namespace. */
  readonly namespace?: string | undefined;
  readonly name: string;
}

/** Longest piece of a file name that a name becomes: file systems take 255 bytes. */
const PIECE = 200;
/** End of a folder's name that says: the name of the object goes on inside. */
const GOES_ON = '%+';

/**
 * A name as one path: everything but small letters, digits and `.-_` is written as %XX (names of roles may have colons and capitals, and
 * not every file system tells capitals apart); very long ones are divided.
 */
function encodeName(name: string): string {
  const safe = name.replace(/^\.|[^a-z0-9._-]/gu, (char) =>
    [...Buffer.from(char)].map((byte) => `%${byte.toString(16).toUpperCase().padStart(2, '0')}`).join(''),
  );
  const parts: string[] = [];
  for (const piece of safe.match(/%..|[^%]/g) ?? []) {
    const last = parts.at(-1);
    if (last === undefined || last.length + piece.length > PIECE) parts.push(piece);
    else parts[parts.length - 1] = last + piece;
  }
  return parts.join(`${GOES_ON}/`);
}

function decodeName(text: string): string {
  const whole = text.replaceAll(`${GOES_ON}/`, '');
  return Buffer.from(
    whole.replace(/%([0-9A-F]{2})/g, (_all, hex: string) => String.fromCharCode(Number.parseInt(hex, 16))),
    'latin1',
  ).toString('utf8');
}

/** Where the file of an object lies. */
export function objectPath({ group, kind, namespace, name }: ObjectKey): string {
  const folder = namespace === undefined ? 'cluster' : `namespaces/${namespace}`;
  return `${folder}/${group === '' ? coreFolder : group}/${kind}/${encodeName(name)}.yaml`;
}

/** Which object a file is; undefined for anything else (`managers/…`, `dr-cluster.yaml`). */
export function parseObjectPath(path: string): ObjectKey | undefined {
  const match = /^(?:cluster|namespaces\/([^/]+))\/([^/]+)\/([^/]+)\/(.+)\.yaml$/.exec(path);
  if (!match) return undefined;
  const [, namespace, group = '', kind = '', name = ''] = match;
  return {
    group: group === coreFolder ? '' : group,
    kind,
    ...(namespace !== undefined && { namespace }),
    name: decodeName(name),
  };
}

/** Where it says who set the fields of the object whose file lies at `path`. */
export function managersPath(path: string): string {
  return `${managersFolder}${path}`;
}

/** True for files whose change alone is no change of the configuration. */
export function isManagersPath(path: string): boolean {
  return path.startsWith(managersFolder);
}

const managersSchema = z.array(
  z.object({
    manager: z.string(),
    operation: z.string(),
    /** ISO time of the last change of these fields. */
    time: z.string().optional(),
    /** `spec.replicas`, `spec.template.spec`, `data.url`: up to three levels, sorted; lists without their elements. */
    fields: z.array(z.string()),
  }),
);

/** Who set which fields of one object, the latest change first. What was written to `status` is left out. */
export type ManagersRecord = z.infer<typeof managersSchema>;

const omissionSchema = z.object({
  /** Kinds (`secrets`, `leases.coordination.k8s.io`), a namespace, or the path of an object. */
  what: z.string(),
  why: z.string(),
});

const summarySchema = z.object({
  format: z.literal(1),
  /** Version of the API server: `v1.32.3`. */
  server: z.string(),
  /** Namespaces that were taken, sorted. */
  namespaces: z.array(z.string()),
  /** Label selector that chose them, where they were not named. */
  selector: z.string().optional(),
  /** Objects that live in no namespace were taken too. */
  clusterObjects: z.boolean(),
  secrets: z.boolean(),
  /** Kinds that were looked at, whether they had objects or not, in the version that the files have. */
  types: z.array(
    z.object({
      group: z.string(),
      version: z.string(),
      kind: z.string(),
      plural: z.string(),
      namespaced: z.boolean(),
    }),
  ),
  /** What is left out on purpose. */
  leftOut: z.array(omissionSchema),
  /** What should be here and could not be read: the backup is degraded by it. */
  lost: z.array(omissionSchema),
});

export type ClusterSummary = z.infer<typeof summarySchema>;
export type Omission = z.infer<typeof omissionSchema>;

/** Text of a file: YAML with sorted keys, readable by YAML 1.1 (kubectl) and 1.2 alike. The same value gives the same text. */
export function toYaml(value: unknown): string {
  return yamlText(value);
}

/** Reads `dr-cluster.yaml`; throws `corrupt` naming `where`. */
export function readSummary(text: string, where: string): ClusterSummary {
  return read(text, summarySchema, where);
}

/** Reads a file of `managers/`; throws `corrupt` naming `where`. */
export function readManagers(text: string, where: string): ManagersRecord {
  return read(text, managersSchema, where);
}

function read<T>(text: string, schema: z.ZodType<T>, where: string): T {
  try {
    return schema.parse(parse(text));
  } catch (cause) {
    throw new DrError('corrupt', 'a file of this backup of a cluster cannot be read', {
      where,
      next: 'Read it from another vault (--vault NAME), or use the version of dr that wrote it.',
      cause,
    });
  }
}
