import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parseConfig } from '../../src/config/load.ts';
import { checkRunbooks, loadRunbook } from '../../src/runbook/load.ts';
import { planRun } from '../../src/runbook/plan.ts';
import { stepRegistry } from '../../src/steps/registry.ts';
import { tempDir } from '../harness/temp.ts';
import { TestWorld } from './world.ts';

// The whole runbook of docs/runbooks.md can be copied.

const document = await readFile('docs/runbooks.md', 'utf8');
const [, text = ''] = /```yaml\n(version: 1\nname: guarded-failover[\s\S]*?)```/.exec(document) ?? [];
const config = (folder: string) => `version: 1
vaults:
  east: { region: eu-west-1, url: "file:///vaults/east" }
  west: { region: eu-central-1, url: "file:///vaults/west" }
sites:
  east: { region: eu-west-1, vault: east }
  west: { region: eu-central-1, vault: west }
active: east
encryption: none
commands:
  start-shop: { run: [/usr/local/bin/start-shop, "{site}"], repeatable: true }
notifications:
  oncall: { slack: "https://hooks.example.com/x" }
runbooks: ${folder}
`;

describe('the runbook of docs/runbooks.md', () => {
  it('has nothing wrong, goes through all stages, and asks one question', async () => {
    const folder = await tempDir('docs-runbook');
    await writeFile(join(folder, 'guarded-failover.yaml'), text);
    const files = await checkRunbooks(parseConfig(config(folder), '/etc/dr/dr.yaml', {}).config, stepRegistry);
    expect(files.filter(({ own }) => own).map(({ name }) => name)).toEqual(['guarded-failover']);
    const runbook = await loadRunbook(folder, 'guarded-failover', stepRegistry);
    expect(runbook.stages).toHaveLength(6);
    const world = await TestWorld.create(
      runbook,
      'commands:\n  start-shop: { run: [/bin/true, "{site}"], repeatable: true }\nnotifications:\n  oncall: { slack: "https://hooks.example.com/x" }\n',
    );
    const plan = await planRun(world.engine(), world.request());
    expect(plan.steps.flatMap(({ id, problems }) => problems.map(({ what }) => `${id}: ${what}`))).toEqual([]);
    expect(plan.steps.flatMap(({ approval }) => approval ?? [])).toEqual([
      expect.stringMatching(/^Promote at west\? nothing of the old site answers from here/),
    ]);
    const tell = plan.steps.find(({ id }) => id === 'tell');
    expect(tell?.will[0]).toMatch(/^send "failover from east to west: nothing of the old site/);
  });
});
