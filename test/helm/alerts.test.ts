import { execFileSync } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parser } from '@prometheus-io/lezer-promql';
import { describe, expect, test } from 'vitest';
import { parse, stringify } from 'yaml';
import { createMetrics } from '../../src/daemon/metrics.ts';
import { helmPrograms } from '../harness/helm/programs.ts';
import { chart, one, render } from '../harness/helm/render.ts';
import { tempDir } from '../harness/temp.ts';

interface Alert {
  readonly alert: string;
  readonly expr: string;
  readonly for?: string;
  readonly labels: { readonly severity: string };
  readonly annotations: { readonly summary: string; readonly description: string };
}
interface Rules {
  readonly groups: ReadonlyArray<{ readonly name: string; readonly rules: readonly Alert[] }>;
}

/** What `/metrics` has, by name, with the labels of each; and the labels that Prometheus adds to what it scrapes. */
const registry = createMetrics('1', () => undefined);
const metrics = new Map(
  registry
    .getMetricsAsArray()
    .map((metric) => [metric.name, (metric as unknown as { labelNames: string[] }).labelNames]),
);
const scraped = ['namespace', 'pod'];

/** The metrics of an expression with the labels that each is selected by; a syntax error is thrown. */
function selectorsOf(expression: string): Array<{ readonly name: string; readonly labels: readonly string[] }> {
  const found: Array<{ name: string; labels: string[] }> = [];
  parser.parse(expression).iterate({
    enter: ({ type, from, to }) => {
      if (type.isError) throw new Error(`no PromQL at "${expression.slice(from, to + 20)}" of: ${expression}`);
      const text = expression.slice(from, to);
      if (type.name === 'VectorSelector') found.push({ name: /^\w+/.exec(text)?.[0] ?? '', labels: [] });
      if (type.name === 'LabelName') found.at(-1)?.labels.push(text);
    },
  });
  return found;
}

/** Every metric exists, is asked for in one namespace, and by labels that it has. */
function check(expression: string): void {
  const selectors = selectorsOf(expression);
  expect(selectors, expression).not.toEqual([]);
  for (const { name, labels } of selectors) {
    expect([...metrics.keys()], expression).toContain(name);
    expect(labels, expression).toContain('namespace');
    // Also the labels of `on (…)` and `by (…)` after it: what is grouped by has to be there.
    for (const label of labels)
      if (label !== 'job')
        expect([...(metrics.get(name) ?? []), ...scraped, ...allLabels], expression).toContain(label);
  }
}
const allLabels = [...metrics.values()].flat();

const file = async (name: string) => await readFile(join(chart, 'files', name), 'utf8');
const alerts = async () => (parse(await file('alerts.yaml')) as Rules).groups.flatMap(({ rules }) => rules);

test('a metric that does not exist, a wrong label and a syntax error are found', () => {
  expect(() => check('dr_nothing{namespace="x"} > 0')).toThrow();
  expect(() => check('dr_vault_up{namespace="x", colour="red"} > 0')).toThrow();
  expect(() => check('dr_vault_up > 0')).toThrow();
  expect(() => check('dr_vault_up{namespace="x"} >')).toThrow('no PromQL');
  check('dr_vault_up{namespace="x"} > 0');
});

test('every alert is about metrics that the daemon has', async () => {
  for (const { expr } of await alerts()) check(expr);
});

test('everything that deserves an alert has one, each of its own name', async () => {
  const names = (await alerts()).map(({ alert }) => alert);
  expect(new Set(names).size).toBe(names.length);
  expect(names).toEqual(
    expect.arrayContaining([
      'DrRpoAtRisk',
      'DrBackupMissed',
      'DrVerificationFailed',
      'DrSlotAtRisk',
      'DrNotCrossRegion',
      'DrRetentionNotRunning',
      'DrSilent',
      'DrLeaseLost',
    ]),
  );
});

test('what an alert says names labels that its metrics have', async () => {
  for (const { expr, annotations } of await alerts()) {
    const has = [...selectorsOf(expr).flatMap(({ name }) => metrics.get(name) ?? []), ...scraped];
    const said = `${annotations.summary} ${annotations.description}`;
    for (const [, label = ''] of said.matchAll(/\$labels\.(\w+)/g)) expect(has, said).toContain(label);
  }
});

test('every panel of the dashboard shows metrics that the daemon has; no two lie over each other', async () => {
  const dashboard = JSON.parse(await file('dashboard.json')) as {
    panels: ReadonlyArray<{
      id: number;
      type: string;
      title: string;
      gridPos: { x: number; y: number; w: number; h: number };
      targets?: ReadonlyArray<{ expr: string }>;
    }>;
  };
  const taken = new Set<string>();
  for (const { type, title, gridPos, targets = [] } of dashboard.panels) {
    if (type !== 'row') expect(targets.length, title).toBeGreaterThan(0);
    for (const { expr } of targets) check(expr);
    expect(gridPos.x + gridPos.w, title).toBeLessThanOrEqual(24);
    for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++) {
      for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
        expect(taken, `${title} lies over another panel`).not.toContain(`${x},${y}`);
        taken.add(`${x},${y}`);
      }
    }
  }
  expect(new Set(dashboard.panels.map(({ id }) => id)).size).toBe(dashboard.panels.length);
});

const [helm] = helmPrograms();
test.skipIf(helm === undefined)('the chart fills in its namespace and nothing else', async () => {
  if (helm === undefined) return;
  const values = { prometheusRule: { enabled: true }, dashboard: { enabled: true } };
  const rendered = await render(helm, { values, namespace: 'shop-dr' });
  const spec = one(rendered, 'PrometheusRule')['spec'];
  expect(spec).toEqual(parse((await file('alerts.yaml')).replaceAll('$namespace', 'shop-dr')));
  expect(JSON.stringify(spec)).not.toContain('$namespace');
  const data = one(rendered, 'ConfigMap', 'dr-dashboard')['data'] as Record<string, string>;
  expect(JSON.parse(data['dr.json'] ?? '')).toEqual(JSON.parse(await file('dashboard.json')));
});

const promtool = (() => {
  try {
    execFileSync('promtool', ['--version'], { stdio: 'pipe' });
    return true;
  } catch {
    return false;
  }
})();

describe.skipIf(!promtool)('as Prometheus judges it: needs promtool', () => {
  /** Values a minute apart. */
  interface Given {
    readonly series: string;
    readonly values: string;
  }
  const labels = 'namespace="prod",pod="dr-0"';

  async function fires(alert: string, at: string, given: readonly Given[]): Promise<string[]> {
    const folder = await tempDir('promtool');
    await writeFile(join(folder, 'rules.yaml'), (await file('alerts.yaml')).replaceAll('$namespace', 'prod'));
    const input_series = given.map(({ series, values }) => ({ series, values }));
    const all = (await alerts()).find((each) => each.alert === alert);
    const unit = {
      interval: '1m',
      input_series,
      alert_rule_test: [{ eval_time: at, alertname: alert, exp_alerts: [] }],
    };
    await writeFile(join(folder, 'test.yaml'), stringify({ rule_files: ['rules.yaml'], tests: [unit] }));
    expect(all, alert).toBeDefined();
    try {
      execFileSync('promtool', ['test', 'rules', 'test.yaml'], { cwd: folder, stdio: 'pipe' });
      return [];
    } catch (error) {
      // What fires is what was not expected.
      const text =
        String((error as { stdout?: Buffer; stderr?: Buffer }).stdout) + String((error as { stderr?: Buffer }).stderr);
      return [...text.matchAll(/Labels:\{(alertname=[^}]*)\}/g)].map(([, found = '']) => found);
    }
  }

  test.each([
    [
      'DrRpoAtRisk',
      '5m',
      [
        { series: `dr_recovery_point_age_seconds{${labels},resource="orders"}`, values: '10 1000x10' },
        { series: `dr_rpo_objective_seconds{${labels},resource="orders"}`, values: '900x10' },
      ],
      [
        { series: `dr_recovery_point_age_seconds{${labels},resource="orders"}`, values: '800x10' },
        { series: `dr_rpo_objective_seconds{${labels},resource="orders"}`, values: '900x10' },
      ],
    ],
    [
      'DrBackupMissed',
      '60m',
      [
        { series: `dr_backup_last_success_timestamp_seconds{${labels},resource="orders"}`, values: '0x100' },
        { series: `dr_backup_max_age_seconds{${labels},resource="orders"}`, values: '1800x100' },
      ],
      [
        { series: `dr_backup_last_success_timestamp_seconds{${labels},resource="orders"}`, values: '0x40 2400x60' },
        { series: `dr_backup_max_age_seconds{${labels},resource="orders"}`, values: '1800x100' },
      ],
    ],
    [
      'DrVerificationFailed',
      '5m',
      [{ series: `dr_verification_ok{${labels},resource="orders"}`, values: '0x10' }],
      [{ series: `dr_verification_ok{${labels},resource="orders"}`, values: '1x10' }],
    ],
    [
      'DrSlotAtRisk',
      '5m',
      [
        {
          series: `dr_wal_slot_status{${labels},resource="orders",slot="dr_orders",status="unreserved"}`,
          values: '1x10',
        },
      ],
      [
        {
          series: `dr_wal_slot_status{${labels},resource="orders",slot="dr_orders",status="reserved"}`,
          values: '1x10',
        },
      ],
    ],
    [
      'DrSilent',
      '10m',
      [{ series: 'dr_build_info{namespace="other"}', values: '1x20' }],
      [{ series: `dr_build_info{${labels}}`, values: '1x20' }],
    ],
    [
      'DrAllVaultsDown',
      '10m',
      [
        { series: `dr_vault_up{${labels},vault="east"}`, values: '0x20' },
        { series: `dr_vault_up{${labels},vault="west"}`, values: '0x20' },
      ],
      [
        { series: `dr_vault_up{${labels},vault="east"}`, values: '0x20' },
        { series: `dr_vault_up{${labels},vault="west"}`, values: '1x20' },
      ],
    ],
    [
      'DrNoLeader',
      '10m',
      [
        { series: 'dr_leader{namespace="prod",pod="dr-0"}', values: '0x20' },
        { series: 'dr_leader{namespace="prod",pod="dr-1"}', values: '0x20' },
      ],
      [
        { series: 'dr_leader{namespace="prod",pod="dr-0"}', values: '0x20' },
        { series: 'dr_leader{namespace="prod",pod="dr-1"}', values: '1x20' },
      ],
    ],
    [
      'DrRestoreTooSlow',
      '5m',
      [
        { series: `dr_restore_seconds{${labels},resource="orders"}`, values: '2000x10' },
        { series: `dr_restore_seconds{${labels},resource="uploads"}`, values: '10x10' },
        { series: `dr_rto_objective_seconds{${labels}}`, values: '3600x10' },
      ],
      [
        { series: `dr_restore_seconds{${labels},resource="orders"}`, values: '200x10' },
        { series: `dr_rto_objective_seconds{${labels}}`, values: '3600x10' },
      ],
    ],
  ])('%s fires when it should, and only then', async (alert, at, bad, good) => {
    expect(await fires(alert, at, bad)).toHaveLength(1);
    expect(await fires(alert, at, good)).toEqual([]);
  });

  test('promtool has nothing against the rules', async () => {
    const folder = await tempDir('promtool');
    await writeFile(join(folder, 'rules.yaml'), await file('alerts.yaml'));
    expect(
      String(execFileSync('promtool', ['check', 'rules', '--lint=all', '--lint-fatal', 'rules.yaml'], { cwd: folder })),
    ).toMatch(/SUCCESS/);
  });
});
