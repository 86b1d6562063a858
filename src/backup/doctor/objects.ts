import { forEachLimit } from '../../base/concurrency.ts';
import { bad, doubtful, type Finding, fromError, good } from '../../base/finding.ts';
import type { Access, Cluster, ObjectType } from '../../cluster/contract.ts';
import type { ObjectSelection } from '../../config/types.ts';
import { chooseKinds, compare, isNamespaceType, kindName, measuredGroups } from '../objects/kinds.ts';
import { ChosenNamespaces } from '../objects/namespaces.ts';

export interface ObjectsDoctorOptions {
  readonly cluster: Cluster;
  readonly select: ObjectSelection;
  /** Changes are watched for. */
  readonly onChange: boolean;
  readonly signal: AbortSignal;
}

/** Questions about rights at once. */
const QUESTIONS = 8;
/** Kinds that are named one by one. */
const SHOWN = 5;

/** Looks whether the chosen objects of a cluster can be read and watched by this account. Changes nothing. */
export async function examineObjects(options: ObjectsDoctorOptions): Promise<Finding[]> {
  const { cluster, select, signal } = options;
  const { git } = await cluster.version(signal);
  const findings = [good(`${cluster.target} answers: version ${git}`)];
  const { types, missing } = await cluster.discover(signal);
  const away = missing.filter((apiVersion) => !measuredGroups.has(apiVersion.split('/')[0] ?? ''));
  if (away.length > 0) {
    const next = 'Mend or remove these APIs (kubectl get apiservices): their objects are missing from the backups.';
    findings.push(doubtful(`the servers of some APIs do not answer: ${away.join(', ')}`, next));
  }
  const namespaces = new ChosenNamespaces(cluster, select, signal);
  for (const { namespace, error } of await namespaces.choose()) {
    findings.push({ ...fromError(error), what: `namespace ${namespace}: ${error.message}` });
  }
  if (namespaces.names.length === 0) {
    const by = select.selector === undefined ? 'of those named' : `that match ${select.selector}`;
    findings.push(doubtful(`there are no namespaces ${by}`, 'Correct namespaces or selector of this configuration.'));
  }
  const { taken } = chooseKinds(types, select);
  const denied = await deniedKinds(options, taken, namespaces.names);
  if (denied.length > 0) findings.push(deniedFinding(denied, options));
  const count = taken.length - denied.length;
  const how = options.onChange ? 'can be read and watched' : 'can be read';
  findings.push(good(`${count} kinds ${how}, in ${amount(namespaces.names.length, 'namespace')}`));
  if (!select.secrets) findings.push(good('Secrets are left out (secrets: true takes them, encrypted)'));
  return findings;
}

function amount(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? '' : 's'}`;
}

interface Denied {
  readonly type: ObjectType;
  readonly verbs: readonly Access['verb'][];
}

async function deniedKinds(
  { cluster, onChange, signal }: ObjectsDoctorOptions,
  taken: readonly ObjectType[],
  namespaces: readonly string[],
): Promise<Denied[]> {
  const denied: Denied[] = [];
  await forEachLimit(taken, QUESTIONS, async (type) => {
    const wanted: Access['verb'][] = onChange && type.verbs.includes('watch') ? ['list', 'watch'] : ['list'];
    const verbs: Access['verb'][] = [];
    for (const verb of wanted) if (!(await allows(cluster, type, verb, namespaces, signal))) verbs.push(verb);
    if (verbs.length > 0) denied.push({ type, verbs });
  });
  return denied.sort((a, b) => compare(kindName(a.type), kindName(b.type)));
}

/** In the whole cluster, or in each of the namespaces. */
async function allows(
  cluster: Cluster,
  type: ObjectType,
  verb: Access['verb'],
  namespaces: readonly string[],
  signal: AbortSignal,
): Promise<boolean> {
  const { apiVersion, kind, namespaced } = type;
  if (await cluster.allows({ apiVersion, kind, verb }, signal)) return true;
  // Namespaces that are named are looked at one by one, and that they cannot be was told already.
  if (isNamespaceType(type)) return verb === 'list';
  if (!namespaced || namespaces.length === 0) return false;
  for (const namespace of namespaces) {
    if (!(await cluster.allows({ apiVersion, kind, verb, namespace }, signal))) return false;
  }
  return true;
}

function deniedFinding(denied: readonly Denied[], { select, onChange }: ObjectsDoctorOptions): Finding {
  const names = denied.map(({ type }) => kindName(type));
  const more = names.length > SHOWN ? `, and ${names.length - SHOWN} more` : '';
  const groups = Map.groupBy(denied, ({ type }) => type.group);
  const verbs = onChange ? '["get", "list", "watch"]' : '["get", "list"]';
  const rules = [...groups]
    .slice(0, SHOWN)
    .map(([group, kinds]) => {
      const resources = kinds.map(({ type }) => `"${type.plural}"`).join(', ');
      return `{ apiGroups: ["${group}"], resources: [${resources}], verbs: ${verbs} }`;
    })
    .join(', ');
  return bad(
    `this account may not ${onChange ? 'list or watch' : 'list'} ${names.slice(0, SHOWN).join(', ')}${more}: backups are degraded by them`,
    `Give it ${select.selector === undefined ? 'the rule' : 'in a ClusterRole the rule'} ${rules}, or leave the kinds out (kinds.exclude).`,
  );
}
