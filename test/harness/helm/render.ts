import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { parseAllDocuments, stringify } from 'yaml';
import type { ClusterObject } from '../../../src/cluster/contract.ts';
import { tempDir } from '../temp.ts';
import type { HelmProgram } from './programs.ts';

const repository = join(import.meta.dirname, '../../..');
export const chart = join(repository, 'helm/dr');

export const environments = ['development', 'staging', 'pre-production', 'production-east', 'production-west'] as const;
export type Environment = (typeof environments)[number];

/** The value files of an environment, in the order in which docs/kubernetes.md gives them. */
export function filesOf(environment: Environment): string[] {
  const names = environment.startsWith('production') ? ['production', environment] : [environment];
  return names.map((name) => join(chart, 'environments', `${name}.yaml`));
}

/** Values that every installation has to give. */
export const needed = {
  site: 'east',
  config: {
    version: 1,
    vaults: {
      east: { region: 'eu-west-1', url: 's3://dr-east/prod' },
      west: { region: 'eu-central-1', url: 's3://dr-west/prod' },
    },
    sites: { east: { region: 'eu-west-1', vault: 'east' }, west: { region: 'eu-central-1', vault: 'west' } },
    active: 'east',
    encryption: { recipients: ['${DR_AGE_RECIPIENT}'] },
    databases: {
      orders: { url: '${ORDERS_DATABASE_URL}', recover: { west: { dataDirectory: '/srv/west/orders', port: 5433 } } },
    },
  },
  networkPolicy: { databases: { cidrs: ['10.20.0.0/16'] } },
};

export interface RenderOptions {
  readonly environment?: Environment;
  /** Over everything else. */
  readonly values?: object;
  /** Texts of value files, instead of `values` and what every installation has to give. */
  readonly layers?: readonly string[];
  /** Without what every installation has to give. */
  readonly bare?: boolean;
  readonly release?: string;
  readonly namespace?: string;
}

export interface Rendered {
  readonly text: string;
  readonly objects: readonly ClusterObject[];
}

/** `helm template`. What Helm refuses is thrown with its words. */
export async function render(helm: HelmProgram, options: RenderOptions = {}): Promise<Rendered> {
  const { environment, values = {}, bare = false, release = 'dr', namespace = 'backup' } = options;
  const folder = await tempDir('values');
  const files = environment === undefined ? [] : filesOf(environment);
  const site = environment?.startsWith('production') ? undefined : needed.site;
  const layers = options.layers ?? [...(bare ? [] : [{ ...needed, site }]), values].map((layer) => stringify(layer));
  for (const [index, layer] of layers.entries()) {
    const file = join(folder, `${index}.yaml`);
    await writeFile(file, layer);
    files.push(file);
  }
  const { stdout } = await promisify(execFile)(
    helm.path,
    [
      'template',
      release,
      chart,
      '--namespace',
      namespace,
      '--kube-version',
      '1.32',
      ...files.flatMap((file) => ['-f', file]),
    ],
    {
      env: { ...process.env, HELM_CACHE_HOME: folder, HELM_CONFIG_HOME: folder, HELM_DATA_HOME: folder },
      maxBuffer: 2 ** 24,
    },
  );
  // As Kubernetes reads it: 0440 is octal, on and yes are true.
  const documents = parseAllDocuments(stdout, { uniqueKeys: true, version: '1.1' });
  for (const { errors } of documents) if (errors[0]) throw errors[0];
  const objects = documents.map((document): unknown => document.toJS()).filter((each) => each !== null);
  return { text: stdout, objects: objects as ClusterObject[] };
}

/** The only object of a kind (and a name). */
export function one({ objects }: Rendered, kind: string, name?: string): ClusterObject {
  const found = objects.filter((each) => each.kind === kind && (name === undefined || each.metadata.name === name));
  if (found.length !== 1 || !found[0]) throw new Error(`${found.length} objects ${kind} ${name ?? ''}`);
  return found[0];
}
