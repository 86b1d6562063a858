import { describe, expect, test } from 'vitest';
import type { ClusterObject } from '../../src/cluster/contract.ts';
import { type Right, type RightsFeature, rights, rightsFeatures, stepRights } from '../../src/cluster/rights.ts';
import { stepRegistry } from '../../src/steps/registry.ts';
import { helmPrograms } from '../harness/helm/programs.ts';
import { environments, type Rendered, render } from '../harness/helm/render.ts';

type TableFeature = Exclude<RightsFeature, 'steps'>;
const features = rightsFeatures.filter((feature): feature is TableFeature => feature !== 'steps');
/** What changes the cluster: only where recoveries are made. */
const atRecoveryOnly = new Set<string>(['restoreConfiguration', 'restoreSecrets', 'routes']);

interface RbacRule {
  readonly apiGroups: readonly string[];
  readonly resources: readonly string[];
  readonly resourceNames?: readonly string[];
  readonly verbs: readonly string[];
}

/** Each single right that an account has: where, verb, group, resource, name. */
function grantedTo({ objects }: Rendered, account: string): string[] {
  const bindings = objects.filter(
    ({ kind, subjects }) =>
      kind.endsWith('RoleBinding') && (subjects as Array<{ name: string }>).some(({ name }) => name === account),
  );
  const roleOf = ({ metadata, roleRef }: ClusterObject) => {
    const { kind, name } = roleRef as { kind: string; name: string };
    const role = objects.find(
      (each) => each.kind === kind && each.metadata.name === name && each.metadata.namespace === metadata.namespace,
    );
    if (!role) throw new Error(`${kind} ${name} is bound and not there`);
    return role;
  };
  return bindings.flatMap((binding) =>
    singles(roleOf(binding)['rules'] as RbacRule[], binding.metadata.namespace ?? 'everywhere'),
  );
}

function singles(rules: readonly RbacRule[], where: string): string[] {
  return rules.flatMap(({ apiGroups, resources, resourceNames = ['any'], verbs }) =>
    apiGroups.flatMap((group) =>
      resources.flatMap((resource) =>
        resourceNames.flatMap((name) => verbs.map((verb) => `${where}: ${verb} ${resource}.${group} ${name}`)),
      ),
    ),
  );
}

/** The same of the table. */
function wanted(list: readonly Right[], namespaces: readonly string[] = []): string[] {
  return list.flatMap((right) => {
    const places = {
      cluster: ['everywhere'],
      own: ['backup'],
      namespaces: namespaces.length === 0 ? ['everywhere'] : namespaces,
    }[right.scope];
    return places.flatMap((place) => singles([right], place));
  });
}

const sorted = (list: readonly string[]) => [...new Set(list)].sort();
const [helm] = helmPrograms();

test('the table says why, and repeats nothing', () => {
  for (const list of [...Object.values(rights), ...Object.values(stepRights)]) {
    expect(list.length).toBeGreaterThan(0);
    for (const { why, verbs, apiGroups, resources } of list) {
      expect(why).toMatch(/^[A-Z].{15,}\.$/);
      expect(verbs.length * apiGroups.length * resources.length).toBeGreaterThan(0);
    }
    const all = wanted(list);
    expect(all).toEqual([...new Set(all)]);
  }
});

test('every step that has rights is a step', () => {
  for (const step of Object.keys(stepRights)) expect([...stepRegistry.keys()]).toContain(step);
});

test('nothing but the restore of configuration may write roles, and nothing may do everything', () => {
  for (const [feature, list] of [...Object.entries(rights), ...Object.entries(stepRights)]) {
    for (const { verbs, apiGroups, resources } of list) {
      expect(apiGroups, feature).not.toContain('*');
      const isRbac = apiGroups.includes('rbac.authorization.k8s.io');
      const writes = verbs.some((verb) => !['get', 'list', 'watch'].includes(verb));
      if (feature !== 'restoreConfiguration') expect(isRbac && writes, feature).toBe(false);
      if (!feature.endsWith('Secrets') && apiGroups.includes(''))
        expect(
          resources.some((resource) => ['secrets', '*'].includes(resource)),
          feature,
        ).toBe(false);
    }
  }
});

describe.skipIf(helm === undefined)('roles of the chart: needs Helm (Linux on x64, or on the PATH)', () => {
  if (helm === undefined) return;

  test('without features nobody gets any right', async () => {
    const rendered = await render(helm);
    expect(rendered.objects.filter(({ kind }) => /Role|Binding/.test(kind))).toEqual([]);
  });

  test.each(features)('%s alone gives exactly its rights', async (feature) => {
    const values = { role: 'recovery', rights: { [feature]: true } };
    const rendered = await render(helm, { values });
    expect(sorted(grantedTo(rendered, 'dr'))).toEqual(sorted(wanted(rights[feature])));
  });

  test.each(features)('%s at the active site', async (feature) => {
    const rendered = await render(helm, { values: { role: 'active', rights: { [feature]: true } } });
    const all = atRecoveryOnly.has(feature) ? [] : wanted(rights[feature]);
    expect(sorted(grantedTo(rendered, 'dr'))).toEqual(sorted(all));
  });

  test('all of them together, in some namespaces', async () => {
    const on = Object.fromEntries(features.map((feature) => [feature, true]));
    const namespaces = ['shop', 'backup'];
    const values = { role: 'recovery', rights: { ...on, namespaces, steps: Object.keys(stepRights) } };
    const rendered = await render(helm, { values });
    const list = [...Object.values(rights), ...Object.values(stepRights)].flat();
    expect(sorted(grantedTo(rendered, 'dr'))).toEqual(sorted(wanted(list, namespaces)));
  });

  test.skipIf(Object.keys(stepRights).length === 0)('each step alone gives exactly its rights', async () => {
    for (const [step, list] of Object.entries(stepRights)) {
      const atRecovery = await render(helm, { values: { role: 'recovery', rights: { steps: [step] } } });
      expect(sorted(grantedTo(atRecovery, 'dr')), step).toEqual(sorted(wanted(list)));
      const active = await render(helm, { values: { rights: { steps: [step] } } });
      expect(grantedTo(active, 'dr'), step).toEqual([]);
    }
  });

  test('custom resources: their groups alone, and only as far as a feature goes', async () => {
    const customGroups = ['cert-manager.io'];
    const off = await render(helm, { values: { rights: { customGroups } } });
    expect(grantedTo(off, 'dr')).toEqual([]);
    const readOnly = await render(helm, { values: { rights: { customGroups, configuration: true } } });
    const custom = (rendered: Rendered) => grantedTo(rendered, 'dr').filter((each) => each.includes('cert-manager'));
    expect(custom(readOnly)).toEqual(
      ['get', 'list', 'watch'].map((verb) => `everywhere: ${verb} *.cert-manager.io any`),
    );
    const restoring = { customGroups, configuration: true, restoreConfiguration: true };
    const both = await render(helm, { values: { role: 'recovery', rights: restoring } });
    expect(custom(both)).toEqual(
      ['get', 'list', 'watch', 'create', 'patch'].map((verb) => `everywhere: ${verb} *.cert-manager.io any`),
    );
  });

  test('further rules are given where recoveries are made, in their namespaces', async () => {
    const rules = [{ apiGroups: [''], resources: ['configmaps'], resourceNames: ['flags'], verbs: ['patch'] }];
    const given = async (role: string) =>
      grantedTo(await render(helm, { values: { role, rights: { rules, namespaces: ['shop'] } } }), 'dr');
    expect(await given('recovery')).toEqual(['shop: patch configmaps. flags']);
    expect(await given('active')).toEqual([]);
  });

  test("the account for the other site's dr has what it is given, and no pod has it", async () => {
    const remote = { enabled: true, routes: true, namespaces: ['shop'] };
    const rendered = await render(helm, { values: { remote, rights: { leader: true } } });
    expect(sorted(grantedTo(rendered, 'dr-remote'))).toEqual(sorted(wanted(rights.routes, ['shop'])));
    expect(sorted(grantedTo(rendered, 'dr'))).toEqual(sorted(wanted(rights.leader)));
    expect(rendered.text).not.toContain('serviceAccountName: dr-remote');
  });

  test.each(environments)('%s: nothing is written into a cluster but at a recovery site', async (environment) => {
    const rendered = await render(helm, { environment });
    const given = grantedTo(rendered, 'dr');
    expect(given.length).toBeGreaterThan(0);
    const writes = given.filter((right) => !/: (get|list|watch) /.test(right) && !right.startsWith('backup: '));
    if (environment === 'staging' || environment === 'production-west') expect(writes).not.toEqual([]);
    else expect(writes).toEqual([]);
  });
});
