import { readFile } from 'node:fs/promises';
import { isAbsolute, join, normalize } from 'node:path';
import { parseAllDocuments } from 'yaml';
import { DrError, fileError } from '../../base/errors.ts';
import type { ClusterObject } from '../../cluster/contract.ts';
import { isJson } from '../../cluster/json.ts';
import type { StepContext } from '../contract.ts';

/** Fields that a server writes: a manifest that has them was copied from one. */
const serverFields = ['uid', 'resourceVersion', 'managedFields', 'creationTimestamp', 'generation'];

/**
 * The objects of a manifest: from a file in the folder of the runbooks, or as they stand in the runbook. Throws `config` with what is wrong.
 * Secrets are refused: neither a runbook nor the journal is a place for them.
 */
export async function readManifests(
  { world }: StepContext,
  { file, objects }: { readonly file: string | undefined; readonly objects: ReadonlyArray<Record<string, unknown>> },
): Promise<ClusterObject[]> {
  const { runbooks, source } = world.config;
  if ((file === undefined) === (objects.length === 0)) {
    throw new DrError('config', 'object.apply needs either "file" or "objects"', { next: 'Correct the runbook.' });
  }
  if (file === undefined) return objects.map((object, i) => checked(object, `objects[${i}]`));
  if (runbooks === undefined) {
    throw new DrError(
      'config',
      `the manifest ${file} lies beside a runbook, and the runbooks are those that come with dr`,
      {
        where: source.path,
        next: 'Set "runbooks" to the folder of your runbooks and their manifests.',
      },
    );
  }
  const inside = normalize(file);
  if (isAbsolute(inside) || inside.startsWith('..')) {
    throw new DrError('config', `the manifest ${file} does not lie in the folder of the runbooks`, {
      where: runbooks,
      next: 'Put it there and write its path relative to that folder.',
    });
  }
  const path = join(runbooks, inside);
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    throw fileError(error, path, 'read the manifest');
  });
  const found: ClusterObject[] = [];
  for (const [i, document] of parseAllDocuments(text).entries()) {
    const [wrong] = document.errors;
    if (wrong) throw new DrError('config', `the manifest is not YAML: ${wrong.message}`, { where: path });
    const value: unknown = document.toJS({ maxAliasCount: 100 });
    if (value !== null) found.push(checked(value, `${path}, document ${i + 1}`));
  }
  if (found.length > 0) return found;
  throw new DrError('config', 'the manifest holds no object', { where: path, next: 'Correct the file.' });
}

function checked(value: unknown, place: string): ClusterObject {
  const wrong = (reason: string) => new DrError('config', reason, { where: place, next: 'Correct the manifest.' });
  if (!isJson(value)) throw wrong('this is no object');
  const { apiVersion, kind, metadata } = value;
  if (typeof apiVersion !== 'string' || typeof kind !== 'string') throw wrong('apiVersion or kind is missing');
  if (kind === 'List') throw wrong('a List is not taken: write its objects as documents of their own');
  if (!isJson(metadata) || typeof metadata['name'] !== 'string') throw wrong('metadata.name is missing');
  if (kind === 'Secret' && apiVersion === 'v1')
    throw wrong(
      'a Secret has no place in a runbook: restore it from a backup, or let an operator make it (external-secrets)',
    );
  const copied = serverFields.filter((field) => Object.hasOwn(metadata, field));
  if (copied.length > 0 || Object.hasOwn(value, 'status'))
    throw wrong(
      `it was copied from a server: remove ${[...copied.map((field) => `metadata.${field}`), ...(Object.hasOwn(value, 'status') ? ['status'] : [])].join(', ')}`,
    );
  return { ...value, apiVersion, kind, metadata: { ...metadata, name: metadata['name'] } };
}
