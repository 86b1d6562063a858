import { DrError } from '../../base/errors.ts';
import type { Cluster, ClusterObject, Discovery, ObjectType, TypeRef } from '../../cluster/contract.ts';
import { splitApiVersion } from '../../cluster/contract.ts';
import { unknownKind } from '../../cluster/errors.ts';
import { inner, records, text } from './draft.ts';

/** Which kinds the cluster has, and which come with the definitions that are restored. */
export class ServedKinds {
  readonly #cluster: Cluster;
  readonly #signal: AbortSignal;
  readonly #preferred: ReadonlyMap<string, ObjectType>;
  readonly #missing: readonly string[];
  readonly #coming = new Map<string, readonly string[]>();
  readonly #answers = new Map<string, Promise<ObjectType | undefined | DrError>>();

  constructor(cluster: Cluster, { types, missing }: Discovery, chosen: readonly ClusterObject[], signal: AbortSignal) {
    this.#cluster = cluster;
    this.#signal = signal;
    this.#preferred = new Map(types.map((type) => [`${type.group}/${type.kind}`, type]));
    this.#missing = missing;
    for (const object of chosen) {
      if (object.kind !== 'CustomResourceDefinition') continue;
      for (const { group, kind, apiVersions } of definedKinds(object))
        this.#coming.set(`${group}/${kind}`, apiVersions);
    }
  }

  /** The kind in the version that the cluster prefers. */
  preferred({ group, kind }: Pick<ObjectType, 'group' | 'kind'>): ObjectType | undefined {
    return this.#preferred.get(`${group}/${kind}`);
  }

  /** How a kind is served: perhaps in another version; undefined when its definition is among what is restored; or why it is not. */
  async of({ apiVersion, kind }: TypeRef): Promise<ObjectType | undefined | DrError> {
    const key = `${apiVersion}/${kind}`;
    const known = this.#answers.get(key) ?? this.#ask({ apiVersion, kind });
    this.#answers.set(key, known);
    return await known;
  }

  async #ask(ref: TypeRef): Promise<ObjectType | undefined | DrError> {
    const { group } = splitApiVersion(ref.apiVersion);
    const preferred = this.preferred({ group, kind: ref.kind });
    if (preferred?.apiVersion === ref.apiVersion) return preferred;
    try {
      return await this.#cluster.type(ref, this.#signal);
    } catch (error) {
      if (!(error instanceof DrError) || error.kind === 'interrupted') throw error;
      if (error.kind !== 'not-found' && !this.#missing.includes(ref.apiVersion)) throw error;
    }
    if (this.#coming.get(`${group}/${ref.kind}`)?.includes(ref.apiVersion)) return undefined;
    if (preferred) return preferred;
    if (!this.#missing.includes(ref.apiVersion)) return unknownKind(ref.kind, ref.apiVersion, this.#cluster.target);
    return new DrError('unreachable', `the server of the API group ${ref.apiVersion} does not answer`, {
      where: this.#cluster.target,
      next: 'Look at its APIService and the pods behind it, then run the command again.',
    });
  }
}

/** The kinds that a definition brings. */
export function definedKinds(definition: ClusterObject): Array<{ group: string; kind: string; apiVersions: string[] }> {
  const spec = inner(definition, 'spec');
  const [group, kind] = [text(spec?.['group']), text(inner(spec, 'names')?.['kind'])];
  if (group === undefined || kind === undefined) return [];
  const versions = records(spec?.['versions']).filter(({ served }) => served !== false);
  return [{ group, kind, apiVersions: versions.map(({ name }) => `${group}/${text(name)}`) }];
}
