import { cpSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { parseConfig } from '../../src/config/load.ts';
import { checkRunbooks, loadRunbook, runbookFiles, shippedRunbooks } from '../../src/runbook/load.ts';
import { stepRegistry } from '../../src/steps/registry.ts';
import { exampleText } from '../config/example.ts';
import { tempDir } from '../harness/temp.ts';
import { errorOfKind, failureOf } from './world.ts';

// A folder of one's own lies beside the runbooks that come with dr.

const shipped = ['corruption', 'failback', 'failover', 'region-evacuation', 'switchover'];
const text = (name: string, steps: string) =>
  `version: 1\nname: ${name}\nsummary: x\nmodes: [failover]\nstages:\n  assess:\n${steps}`;
const wait = '    - { id: wait, uses: wait }\n';

let own: string;
const write = (name: string, content: string) => writeFileSync(join(own, `${name}.yaml`), content);

beforeEach(async () => {
  own = await tempDir('own-runbooks');
});

describe('a folder of one’s own', () => {
  it('adds to the runbooks that come with dr, and its own counts where both have one', async () => {
    write('mine', text('mine', wait));
    write('failover', text('failover', wait));
    const files = await runbookFiles(own);
    expect(files.map(({ name }) => name)).toEqual([...shipped, 'mine'].sort());
    expect(files.filter((file) => file.own).map(({ path }) => path)).toEqual([
      join(own, 'failover.yaml'),
      join(own, 'mine.yaml'),
    ]);
    expect((await loadRunbook(own, 'failover', stepRegistry)).source.path).toBe(join(own, 'failover.yaml'));
    expect((await loadRunbook(own, 'mine', stepRegistry)).name).toBe('mine');
    const other = await loadRunbook(own, 'switchover', stepRegistry);
    expect(other.source.path).toBe(join(shippedRunbooks, 'switchover.yaml'));
  });

  it('says of an unknown name which there are, and where each comes from', async () => {
    write('mine', text('mine', wait));
    const error = errorOfKind(await failureOf(loadRunbook(own, 'evacuate-all', stepRegistry)), 'not-found');
    expect(error.message).toBe(
      `there is no runbook "evacuate-all"; known are mine (in ${own}); ${shipped.join(', ')} (these come with dr)`,
    );
    expect(error.next).toContain(join(own, 'evacuate-all.yaml'));
  });

  it('that is not there is an error: the shipped runbook is not the one that was rehearsed', async () => {
    const error = await failureOf(loadRunbook(join(own, 'gone'), 'failover', stepRegistry));
    expect(errorOfKind(error, 'not-found').where).toBe(join(own, 'gone'));
  });

  it('may hold manifests beside the runbooks', async () => {
    write('maintenance', 'apiVersion: v1\nkind: ConfigMap\nmetadata: { name: maintenance }\n');
    expect((await runbookFiles(own)).map(({ name }) => name)).toEqual(shipped);
  });

  it('refuses a runbook whose name is not that of its file', async () => {
    write('mine', text('yours', wait));
    const error = errorOfKind(await failureOf(loadRunbook(own, 'mine', stepRegistry)), 'config');
    expect(error.message).toContain(`${join(own, 'mine.yaml')}:2: name: it is "yours", but the file is mine.yaml`);
  });
});

describe('checking all runbooks', () => {
  const config = () =>
    parseConfig(
      `${exampleText('age1qyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqs3290gq')}runbooks: ${own}
commands:
  stop-writers: { run: [/bin/true, "{what}"], repeatable: true }
notifications:
  oncall: { slack: "https://hooks.example.com/x" }
`,
      '/etc/dr/dr.yaml',
      { ORDERS_DATABASE_URL: 'postgresql://dr@db/orders' },
    ).config;

  it('lists every problem of every file with its line, also names that the configuration does not have', async () => {
    write(
      'one',
      text(
        'one',
        '    - { id: tell, uses: notify, with: { to: oncal, text: "hello" } }\n    - { id: Bad, uses: wait }\n',
      ),
    );
    write(
      'two',
      text(
        'two',
        [
          '    - { id: tell, uses: notify, with: { to: oncal, text: "hello" } }',
          '    - { id: go, uses: command.run, with: { command: stop } }',
          '    - { id: stop, uses: command.run, with: { command: stop-writers, arguments: { whot: x } } }',
          '    - { id: late, uses: command.run, with: { command: stop-writers, arguments: { what: "${{ run.site }}" } } }',
        ].join('\n'),
      ),
    );
    cpSync(join(shippedRunbooks, 'failover.yaml'), join(own, 'failover.yaml'));
    const error = errorOfKind(await failureOf(checkRunbooks(config(), stepRegistry)), 'config');
    const lines = error.message.split('\n').map((line) => line.replaceAll(own, ''));
    expect(lines).toEqual([
      'the runbooks have 4 problems:',
      expect.stringMatching(/^ {2}- \/one\.yaml:8: id: an id is of small letters/),
      '  - /two.yaml:7: step "tell": the configuration has no notification "oncal"; did you mean oncall?',
      '  - /two.yaml:8: step "go": the configuration allows no command "stop"; known are stop-writers',
      '  - /two.yaml:9: step "stop": command stop-writers needs the argument "what"',
    ]);
  });

  it('gives the files when all is well', async () => {
    write('mine', text('mine', '    - { id: tell, uses: notify, with: { to: oncall, text: "hello" } }\n'));
    const files = await checkRunbooks(config(), stepRegistry);
    expect(files.filter((file) => file.own).map(({ name }) => name)).toEqual(['mine']);
    expect(files).toHaveLength(shipped.length + 1);
  });
});
