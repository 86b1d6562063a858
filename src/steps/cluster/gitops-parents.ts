import type { Cluster, ClusterObject } from '../../cluster/contract.ts';
import { showRef } from '../../cluster/contract.ts';
import type { GitopsConfig } from '../../config/types.ts';
import type { StepContext, StepPlan } from '../contract.ts';
import { at, listAt, textAt } from './fields.ts';
import { find } from './sites.ts';

/** An Application that another one has made (`app of apps`): its name. */
export function parentOf(object: ClusterObject): string | undefined {
  if (object.kind !== 'Application') return undefined;
  // `NAME:GROUP/KIND:NAMESPACE/NAME`, with `NAMESPACE_` before the name where Applications live in any namespace.
  const tracking = object.metadata.annotations?.['argocd.argoproj.io/tracking-id'];
  const [written] = tracking?.split(':') ?? [];
  const name = written?.split('_').at(-1) ?? object.metadata.labels?.['argocd.argoproj.io/instance'];
  return name === object.metadata.name ? undefined : name;
}

/** The entry of the configuration that pauses the parent. */
export function parentEntry({ world }: StepContext, object: ClusterObject, site: string): GitopsConfig | undefined {
  const parent = parentOf(object);
  return Object.values(world.config.gitops).find(
    ({ kind, name, sites }) => kind === 'Application' && name === parent && sites.includes(site),
  );
}

/** Who would put an Application back that was paused: an ApplicationSet, or a parent that is not paused itself. */
export async function parentProblems(
  context: StepContext,
  cluster: Cluster,
  object: ClusterObject,
  site: string,
): Promise<Array<StepPlan['problems'][number]>> {
  const set = object.metadata.ownerReferences?.find(({ kind }) => kind === 'ApplicationSet');
  if (set !== undefined) {
    const { namespace } = object.metadata;
    const found = await find(
      cluster,
      { apiVersion: set.apiVersion, kind: set.kind, namespace, name: set.name },
      context.signal,
    );
    if (found === undefined || keepsPause(found)) return [];
    return [
      {
        what: `ApplicationSet ${set.name} makes ${showRef(object.metadata.namespace ? { ...object, namespace: object.metadata.namespace, name: object.metadata.name } : { ...object, name: object.metadata.name })} and would put its sync policy back`,
        next: `Give the ApplicationSet "ignoreApplicationDifferences: [{ jsonPointers: [/spec/syncPolicy] }]", or syncPolicy.applicationsSync: create-only.`,
      },
    ];
  }
  const parent = parentOf(object);
  if (parent === undefined || parentEntry(context, object, site) !== undefined) return [];
  const found = await find(
    cluster,
    { apiVersion: object.apiVersion, kind: object.kind, namespace: object.metadata.namespace, name: parent },
    context.signal,
  );
  if (found === undefined || at(found, 'spec', 'syncPolicy', 'automated', 'selfHeal') !== true) return [];
  return [
    {
      what: `Application ${parent} has made Application ${object.metadata.name} and heals it: it would put its sync policy back`,
      next: `Name ${parent} under "gitops" too: it is paused first.`,
    },
  ];
}

/** Whether an ApplicationSet leaves the sync policy of its Applications alone. */
function keepsPause(set: ClusterObject): boolean {
  const policy = textAt(set, 'spec', 'syncPolicy', 'applicationsSync');
  if (policy === 'create-only' || policy === 'create-delete') return true;
  return listAt(set, 'spec', 'ignoreApplicationDifferences').some(({ jsonPointers, jqPathExpressions }) => {
    const paths = [
      ...(Array.isArray(jsonPointers) ? jsonPointers : []),
      ...(Array.isArray(jqPathExpressions) ? jqPathExpressions : []),
    ];
    return paths.some((path) => /^[/.]spec[/.]syncPolicy([/.]automated)?$/.test(String(path)));
  });
}
