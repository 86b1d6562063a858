import type { ClusterObject } from '../../cluster/contract.ts';
import { showRef } from '../../cluster/contract.ts';
import type { GitopsConfig, WorkloadConfig } from '../../config/types.ts';
import type { StepContext, StepPlan } from '../contract.ts';
import { at } from './fields.ts';
import { ownerOf, workloadRef } from './workload-state.ts';

type Problem = StepPlan['problems'][number];

/** Managers that write the number of copies again and again, by how they sign (`metadata.managedFields`). */
const reconcilers: Readonly<Record<string, readonly GitopsConfig['kind'][]>> = {
  'argocd-controller': ['Application'],
  'argocd-application-controller': ['Application'],
  'kustomize-controller': ['Kustomization'],
  'helm-controller': ['HelmRelease'],
};

/** Who would put a workload back as it was, as far as the object shows it. */
export function workloadProblems(
  { world }: StepContext,
  entry: WorkloadConfig,
  object: ClusterObject,
  site: string,
): Problem[] {
  const problems: Problem[] = [];
  const what = showRef(workloadRef(entry));
  const owner = ownerOf(object);
  if (owner !== undefined) {
    problems.push({
      what: `${what} belongs to ${owner.kind} ${owner.name}, whose operator would put it back`,
      next: `Stop ${owner.kind} ${owner.name} in the way of its operator (command.run, object.apply), and take ${entry.entry} out of the workloads.`,
    });
  }
  for (const { manager, fieldsV1, subresource } of object.metadata.managedFields ?? []) {
    const kinds = Object.hasOwn(reconcilers, manager) ? reconcilers[manager] : undefined;
    if (kinds === undefined || subresource === 'status' || at(fieldsV1, 'f:spec', 'f:replicas') === undefined) continue;
    const paused = Object.values(world.config.gitops).filter(
      ({ kind, sites }) => kinds.includes(kind) && sites.includes(site),
    );
    if (paused.length > 0) continue;
    problems.push({
      what: `${manager} sets how many copies ${what} has, and would put that back`,
      next: `Name its ${kinds.join(' or ')} under "gitops" in the configuration, and pause it before (gitops.pause); or leave replicas out of Git.`,
    });
  }
  return problems;
}

/** Whether a configuration that is restored at the site, before workloads are started, may bring this one. */
export function comesByRestore({ world }: StepContext, entry: WorkloadConfig, site: string): boolean {
  return Object.values(world.config.objects).some(({ select, recover }) => {
    const target = Object.hasOwn(recover, site) ? recover[site] : undefined;
    if (target === undefined) return false;
    return (
      select.namespaces === undefined ||
      select.namespaces.some((name) => (target.namespaces[name] ?? name) === entry.namespace)
    );
  });
}
