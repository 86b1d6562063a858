import { existsSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { parseDocument } from 'yaml';

const repository = join(import.meta.dirname, '../..');
const folder = join(repository, '.github/workflows');

interface Step {
  readonly uses?: string;
  readonly run?: string;
  readonly with?: Readonly<Record<string, unknown>>;
}
interface Job {
  readonly 'timeout-minutes'?: number;
  readonly environment?: string;
  readonly needs?: string | readonly string[];
  readonly permissions?: Readonly<Record<string, string>>;
  readonly uses?: string;
  readonly steps?: readonly Step[];
}
interface Workflow {
  readonly name: string;
  readonly on: Readonly<Record<string, unknown>>;
  readonly permissions: Readonly<Record<string, string>>;
  readonly jobs: Readonly<Record<string, Job>>;
}

const files = (await readdir(folder)).sort();
const workflows = new Map<string, { readonly text: string; readonly workflow: Workflow }>();
for (const file of files) {
  const text = await readFile(join(folder, file), 'utf8');
  const document = parseDocument(text, { uniqueKeys: true });
  if (document.errors[0]) throw document.errors[0];
  workflows.set(file, { text, workflow: document.toJS() as Workflow });
}
const { scripts } = JSON.parse(await readFile(join(repository, 'package.json'), 'utf8')) as {
  scripts: Record<string, string>;
};

test('there is a workflow for each stage of the way to production', () => {
  expect(files).toEqual(['build.yml', 'deploy-production.yml', 'deploy-region.yml', 'deploy-staging.yml', 'test.yml']);
});

/** Values of the matrix of a job, for `$SUITE` and the like. */
const expanded = (command: string) =>
  command.includes('$SUITE')
    ? ['integration', 'contract', 'security', 'e2e'].map((suite) => command.replace('$SUITE', suite))
    : [command];

describe.each([...workflows])('%s', (_file, { text, workflow }) => {
  const jobs = Object.entries(workflow.jobs);
  const steps = jobs.flatMap(([, job]) => job.steps ?? []);
  const commands = steps.flatMap(({ run }) => (run === undefined ? [] : expanded(run)));

  test('every npm script it runs exists', () => {
    const named = commands.flatMap((command) =>
      [...command.matchAll(/npm run (?:--silent )?"?([a-z:0-9-]+)"?/g)].map(([, name = '']) => name),
    );
    for (const name of named) expect(Object.keys(scripts)).toContain(name);
  });

  test('every file of the repository it names exists', () => {
    const called = [...steps, ...Object.values(workflow.jobs)].flatMap(({ uses }) =>
      uses?.startsWith('./') ? uses : [],
    );
    const said = [...commands, ...called].join('\n');
    const paths = [...said.matchAll(/(?:^|[\s"'=])(?:\.\/)?((?:helm|\.github|scripts|test|docs|config)\/[\w./$-]+)/gm)];
    for (const [, path = ''] of paths)
      for (const region of path.includes('$REGION') ? ['east', 'west'] : ['']) {
        const real = path.replace('$REGION', region).replaceAll('"', '');
        expect(existsSync(join(repository, real)), real).toBe(true);
      }
  });

  test('it may read, and what it may beyond that stands at the job that needs it', () => {
    expect(workflow.permissions).toEqual({ contents: 'read' });
    for (const [name, { permissions = {} }] of jobs) {
      const writes = Object.entries(permissions).filter(([, right]) => right !== 'read');
      const allowed: Record<string, string[]> = { image: ['packages'], 'security-scan': ['security-events'] };
      expect(
        writes.map(([scope]) => scope),
        name,
      ).toEqual(allowed[name] ?? []);
    }
  });

  test('every job ends by itself', () => {
    for (const [name, job] of jobs) {
      if (job.uses === undefined) expect(job['timeout-minutes'], name).toBeGreaterThan(0);
    }
  });

  test('every action is pinned: to a commit, or at least to a version', () => {
    for (const { uses } of steps) {
      if (uses !== undefined && !uses.startsWith('./')) expect(uses).toMatch(/@([0-9a-f]{40}|v\d+(\.\d+){0,2})$/);
    }
    // A commit says beside it which version it is.
    for (const [line] of text.matchAll(/uses: .*@[0-9a-f]{40}.*$/gm)) expect(line).toMatch(/# v\d+\.\d+\.\d+$/);
  });

  test('no credentials stay in the checkout, and nothing from outside is written into a shell script', () => {
    for (const { uses, with: given } of steps) {
      if (uses?.startsWith('actions/checkout')) expect(given?.['persist-credentials']).toBe(false);
    }
    for (const command of commands) expect(command).not.toMatch(/\$\{\{/);
  });
});

test('production is approved by people, in its own order, and taken back when it fails', () => {
  const production = workflows.get('deploy-production.yml')?.workflow;
  const region = workflows.get('deploy-region.yml')?.workflow.jobs['region'];
  expect(Object.keys(production?.on ?? {})).toEqual(['workflow_dispatch']);
  expect(production?.jobs['west']?.needs).toBe('staged');
  expect(production?.jobs['east']?.needs).toBe('west');
  expect(region?.environment).toBe('production-${{ inputs.region }}');
  expect(region?.steps?.filter(({ run }) => run?.startsWith('helm rollback'))).toHaveLength(2);
});

test('staging is tested end to end', () => {
  const staging = workflows.get('deploy-staging.yml')?.workflow.jobs['deploy'];
  const commands = staging?.steps?.flatMap(({ run }) => run ?? []) ?? [];
  const end = commands.join('\n');
  for (const said of ['helm test', '$DR doctor', '$DR backup', '$DR verify', '$DR failover --drill', 'helm rollback'])
    expect(end).toContain(said);
});

test('unit, integration and end-to-end tests together are all tests', async () => {
  const named = ['test:unit', 'test:integration', 'test:e2e'].flatMap(
    (name) => scripts[name]?.match(/test\/[\w-]+/g) ?? [],
  );
  const folders = new Set<string>();
  for (const path of await readdir(join(repository, 'test'), { recursive: true }))
    if (path.endsWith('.test.ts')) folders.add(`test/${path.split('/')[0]}`);
  expect(named.sort()).toEqual([...folders].sort());
});

test('every path that a suite names has tests', async () => {
  const all = (await readdir(join(repository, 'test'), { recursive: true })).map((path) => `test/${path}`);
  for (const script of ['test:unit', 'test:integration', 'test:e2e', 'test:contract', 'test:security']) {
    const paths = scripts[script]?.split(' -- ')[1]?.split(' ') ?? [];
    expect(paths.length, script).toBeGreaterThan(0);
    for (const path of paths)
      expect(
        all.some((each) => each.endsWith('.test.ts') && each.includes(path)),
        path,
      ).toBe(true);
  }
});
