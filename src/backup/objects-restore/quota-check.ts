import { DrError } from '../../base/errors.ts';
import { doubtful, type Finding } from '../../base/finding.ts';
import type { Cluster, ClusterObject } from '../../cluster/contract.ts';
import { inner } from './draft.ts';
import type { Item, RestorePlan } from './plan.ts';
import { type Amounts, demandOf, lacks, quantity } from './quota.ts';

const claimKind = 'PersistentVolumeClaim';

/**
 * Quotas that the restored objects will not fit into once they are activated: the API server itself says so only when the pods begin. Only
 * what is new counts; what is there has been counted by the server.
 */
export async function quotaFindings(cluster: Cluster, plan: RestorePlan, signal: AbortSignal): Promise<Finding[]> {
  const found: Finding[] = [];
  const byNamespace = new Map<string, Item[]>();
  for (const item of plan.items) {
    const { namespace } = item.object.metadata;
    if (namespace !== undefined) byNamespace.set(namespace, [...(byNamespace.get(namespace) ?? []), item]);
  }
  for (const [namespace, items] of byNamespace) {
    const quotas = await quotasOf(cluster, namespace, items, signal);
    if (quotas.length === 0) continue;
    const fresh = items.filter(({ live }) => live === undefined);
    const claims = new Set(
      items.filter(({ object }) => object.kind === claimKind).map(({ object }) => object.metadata.name),
    );
    for (const { kind, name, namespace: home } of plan.live.objects.values())
      if (kind === claimKind && home === namespace) claims.add(name);
    const demands = fresh.map(({ object, type }) => demandOf(object, type?.plural, (name) => claims.has(name)));
    for (const quota of quotas) found.push(...judge(quota, namespace, demands, fresh));
  }
  return found;
}

/** Those that are there, and those that come. Quotas that count only some objects are not judged. */
async function quotasOf(
  cluster: Cluster,
  namespace: string,
  items: readonly Item[],
  signal: AbortSignal,
): Promise<ClusterObject[]> {
  const coming = items.map(({ object }) => object).filter(({ kind }) => kind === 'ResourceQuota');
  let there: readonly ClusterObject[] = [];
  try {
    const type = { apiVersion: 'v1', kind: 'ResourceQuota' };
    there = (await cluster.list(type, { namespace, limit: 0 }, signal)).objects;
  } catch (error) {
    // Without the right to read them there is nothing to judge.
    if (!(error instanceof DrError) || error.kind === 'interrupted' || error.kind === 'unreachable') throw error;
  }
  const names = new Set(there.map(({ metadata }) => metadata.name));
  const all = [...there, ...coming.filter(({ metadata }) => !names.has(metadata.name))];
  return all.filter((quota) => !inner(quota, 'spec')?.['scopes'] && !inner(quota, 'spec', 'scopeSelector'));
}

function judge(
  quota: ClusterObject,
  namespace: string,
  demands: readonly Amounts[],
  fresh: readonly Item[],
): Finding[] {
  const found: Finding[] = [];
  const hard = inner(quota, 'spec', 'hard') ?? {};
  const used = inner(quota, 'status', 'used') ?? {};
  const where = `ResourceQuota ${namespace}/${quota.metadata.name}`;
  for (const [name, limit] of Object.entries(hard)) {
    const most = quantity(limit);
    const more = demands.reduce((sum, demand) => sum + (demand.get(name) ?? 0), 0);
    const now = quantity(used[name] ?? 0) ?? 0;
    if (most !== undefined && more > 0 && now + more > most * (1 + 1e-9)) {
      const amounts = `${name}: ${show(now)} used and ${show(more)} restored, of ${String(limit)}`;
      found.push(
        doubtful(
          `${where} will be exceeded when everything is activated (${amounts})`,
          'Raise the quota, or activate less.',
        ),
      );
    }
    const silent = fresh.find(({ object }) => lacks(object, name));
    if (silent) {
      const { kind, metadata } = silent.object;
      found.push(
        doubtful(
          `${where} counts ${name}, and containers of ${kind} ${namespace}/${metadata.name} do not say theirs: their pods are refused`,
          'Say it in the workload, or give a default by a LimitRange.',
        ),
      );
    }
  }
  return found;
}

function show(amount: number): string {
  if (amount >= 2 ** 20 && Number.isInteger(amount / 2 ** 20))
    return amount >= 2 ** 30 && Number.isInteger(amount / 2 ** 30) ? `${amount / 2 ** 30}Gi` : `${amount / 2 ** 20}Mi`;
  return String(Math.round(amount * 1000) / 1000);
}
