import { createHash } from 'node:crypto';
import { z } from 'zod';
import { DrError } from '../../base/errors.ts';
import type { Cluster, ClusterObject, ObjectRef } from '../../cluster/contract.ts';
import { refOf, showRef } from '../../cluster/contract.ts';
import { defineStep, runModes, type StepContext } from '../contract.ts';
import { readManifests } from './manifests.ts';
import { find, siteOf, where } from './sites.ts';

/** The run that made an object, so that giving the run up removes it again. */
const createdAnnotation = 'dr.io/created-by';

export const objectApply = defineStep({
  name: 'object.apply',
  summary:
    'Apply manifests in the cluster of a site (server-side apply); fields that belong to somebody else are named',
  effect: 'changes',
  modes: runModes,
  inDrill: 'Stores nothing: the API server is asked by a dry run.',
  params: z.object({
    site: where,
    file: z
      .string()
      .min(1)
      .optional()
      .describe('YAML file with one or more objects, relative to the folder of the runbooks.'),
    objects: z
      .array(z.record(z.string(), z.unknown()))
      .default([])
      .describe('The objects themselves, instead of a file.'),
    namespace: z.string().min(1).optional().describe('For objects that do not name one.'),
    force: z
      .boolean()
      .default(false)
      .describe('True: take fields over from other managers. They may take them back at once: pause them before.'),
  }),
  outputs: z.object({
    digest: z.string().describe('SHA-256 of what was applied.'),
    created: z.array(z.string()).describe('Objects that were not there before.'),
    changed: z.array(z.string()).describe('Objects that were there and are different now.'),
  }),
  timeoutMs: 5 * 60_000,
  async plan(context, { site: side = 'recovery', file, objects = [], namespace, force = false }) {
    const manifests = await readManifests(context, { file, objects });
    const cluster = await context.world.cluster(siteOf(context, side));
    const found = await applyAll(context, cluster, manifests, { namespace, force, dryRun: true });
    const names = (list: readonly string[]) => list.join(', ');
    return {
      target: `${manifests.length} objects in the cluster of ${siteOf(context, side)}${file === undefined ? '' : ` from ${file}`}`,
      present: [
        ...(found.same.length > 0 ? [`as wanted: ${names(found.same)}`] : []),
        ...(found.changed.length > 0 ? [`different: ${names(found.changed)}`] : []),
        ...(found.created.length > 0 ? [`not there: ${names(found.created)}`] : []),
      ].join('; '),
      will: [
        ...(found.created.length > 0 ? [`create ${names(found.created)}`] : []),
        ...(found.changed.length > 0 ? [`change ${names(found.changed)}`] : []),
        ...(found.created.length + found.changed.length === 0 ? ['change nothing'] : []),
      ],
      problems: found.problems,
    };
  },
  // No `done`: applying the same again changes nothing.
  async run(context, { site: side, file, objects, namespace, force }) {
    const { run, note } = context;
    const manifests = await readManifests(context, { file, objects });
    const site = siteOf(context, side);
    const dryRun = run.mode === 'drill';
    const cluster = await context.world.cluster(site);
    const { created, changed, same, problems } = await applyAll(context, cluster, manifests, {
      namespace,
      force,
      dryRun,
    });
    const digest = createHash('sha256').update(JSON.stringify(manifests)).digest('hex');
    const [problem] = problems;
    const would = dryRun ? 'would be ' : '';
    if (created.length > 0) note(`${would}created at ${site}: ${created.join(', ')}`);
    if (changed.length > 0) note(`${would}changed at ${site}: ${changed.join(', ')}`);
    if (same.length > 0) note(`as wanted at ${site}: ${same.join(', ')}`);
    if (problem) {
      throw new DrError(problem.kind, problems.map(({ what }) => what).join('; '), {
        where: `cluster of ${site}`,
        next: problem.next ?? 'Correct the manifest, then run the same command again.',
        retryable: problems.every(({ retryable }) => retryable),
      });
    }
    return { digest, created, changed };
  },
  async undo(context, { site: side, file, objects, namespace }) {
    const { run, note, signal } = context;
    if (run.mode === 'drill') return;
    const cluster = await context.world.cluster(siteOf(context, side));
    for (const manifest of (await readManifests(context, { file, objects })).reverse()) {
      const ref = await placed(cluster, refOf(manifest), namespace, signal);
      const object = await find(cluster, ref, signal);
      if (object === undefined) continue;
      if (object.metadata.annotations?.[createdAnnotation] !== run.id) {
        note(`${showRef(ref)} stays as it is: it was there before`);
        continue;
      }
      await cluster.delete(ref, { uid: object.metadata.uid }, signal);
      note(`${showRef(ref)} removed`);
    }
  },
});

interface Applied {
  readonly created: string[];
  readonly changed: string[];
  readonly same: string[];
  readonly problems: Array<{ kind: DrError['kind']; what: string; next: string | undefined; retryable: boolean }>;
}

/** Applies what can be applied, in the order of the manifest; what is refused does not keep the rest back. */
async function applyAll(
  context: StepContext,
  cluster: Cluster,
  manifests: readonly ClusterObject[],
  options: { readonly namespace: string | undefined; readonly force: boolean; readonly dryRun: boolean },
): Promise<Applied> {
  const { signal, run } = context;
  const { namespace, force, dryRun } = options;
  const applied: Applied = { created: [], changed: [], same: [], problems: [] };
  for (const manifest of manifests) {
    let shown = showRef(refOf(manifest));
    try {
      const ref = await placed(cluster, refOf(manifest), namespace, signal);
      shown = showRef(ref);
      const before = await find(cluster, ref, signal);
      const isOurs = before === undefined || before.metadata.annotations?.[createdAnnotation] === run.id;
      const annotations = { ...manifest.metadata.annotations, ...(isOurs && { [createdAnnotation]: run.id }) };
      const place = ref.namespace === undefined ? {} : { namespace: ref.namespace };
      const wanted = { ...manifest, metadata: { ...manifest.metadata, ...place, annotations } };
      const after = await applyOne(context, cluster, wanted, { force, dryRun }, () =>
        isPromised(manifests, manifest, namespace),
      );
      if (before === undefined) applied.created.push(shown);
      else if (before.metadata.generation !== after.metadata.generation || !isEqual(before, after))
        applied.changed.push(shown);
      else applied.same.push(shown);
    } catch (error) {
      if (!(error instanceof DrError) || signal.aborted) throw error;
      if (dryRun && error.kind === 'not-found' && isPromised(manifests, manifest, namespace)) {
        applied.created.push(shown);
        continue;
      }
      const { kind, message, next, retryable } = error;
      applied.problems.push({ kind, what: `${shown}: ${message}`, next, retryable });
    }
  }
  return applied;
}

/** How long a definition that was just applied may take until its kind is served, milliseconds. */
const SERVED_WITHIN_MS = 30_000;

/** Applies one object; one whose kind or namespace was made just before is waited for. */
async function applyOne(
  { clock, signal }: StepContext,
  cluster: Cluster,
  object: ClusterObject,
  options: { readonly force: boolean; readonly dryRun: boolean },
  isPromised: () => boolean,
): Promise<ClusterObject> {
  const until = clock.now() + SERVED_WITHIN_MS;
  for (;;) {
    try {
      return await cluster.apply(object, options, signal);
    } catch (error) {
      const isEarly = error instanceof DrError && error.kind === 'not-found' && !options.dryRun && isPromised();
      if (!isEarly || clock.now() >= until) throw error;
      await clock.sleep(1000, signal);
    }
  }
}

/** A dry run cannot see what an object before this one would have made: its namespace, or the definition of its kind. */
function isPromised(
  manifests: readonly ClusterObject[],
  manifest: ClusterObject,
  namespace: string | undefined,
): boolean {
  const home = manifest.metadata.namespace ?? namespace;
  return manifests
    .slice(0, manifests.indexOf(manifest))
    .some(({ kind, metadata, spec }) =>
      kind === 'Namespace'
        ? metadata.name === home
        : kind === 'CustomResourceDefinition' &&
          (spec as { names?: { kind?: string } } | undefined)?.names?.kind === manifest.kind,
    );
}

async function placed(
  cluster: Cluster,
  ref: ObjectRef,
  namespace: string | undefined,
  signal: AbortSignal,
): Promise<ObjectRef> {
  if (ref.namespace !== undefined || namespace === undefined) return ref;
  const { namespaced } = await cluster.type(ref, signal);
  return namespaced ? { ...ref, namespace } : ref;
}

/** Equal but for what every write changes. */
function isEqual(a: ClusterObject, b: ClusterObject): boolean {
  const bare = ({ metadata, status: _status, ...rest }: ClusterObject) =>
    JSON.stringify([rest, metadata.labels, metadata.annotations]);
  return bare(a) === bare(b);
}
