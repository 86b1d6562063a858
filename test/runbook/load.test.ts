import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { loadRunbook, parseRunbook, type Registry, shippedRunbooks } from '../../src/runbook/load.ts';
import { defineStep, type StepDefinition } from '../../src/steps/contract.ts';
import { stepRegistry } from '../../src/steps/registry.ts';
import { errorOfKind, failureOf } from './world.ts';

const text = `version: 1
name: test
summary: A runbook of a test
modes: [failover, drill]
stages:
  assess:
    - id: look
      uses: test.look
  restore:
    - parallel:
        - id: put
          uses: test.put
          forEach: databases
          timeout: 5m
          with: { what: "\${{ steps.look.outputs.found }}", note: "to \${{ run.site }}" }
        - id: other
          uses: test.look
  validate:
    - id: after
      uses: test.after
      when: [failover]
`;

type Definition = StepDefinition<z.ZodObject, z.ZodObject>;
function kind(name: string, changes: Partial<Definition>) {
  return defineStep({
    name,
    summary: 'x',
    effect: 'none',
    modes: ['failover', 'drill'],
    params: z.object({}),
    outputs: z.object({ found: z.string(), count: z.number() }),
    timeoutMs: 1000,
    plan: async () => ({ target: '', present: '', will: [], problems: [] }),
    run: async () => ({ found: 'x', count: 1 }),
    ...changes,
  } as Definition);
}
const registry: Registry = new Map(
  [
    kind('test.look', {}),
    kind('test.put', {
      over: 'databases',
      effect: 'changes',
      params: z.object({ what: z.string(), note: z.string().optional(), size: z.number().optional() }),
    }),
    kind('test.after', { after: [{ uses: 'test.put', modes: ['failover'] }] }),
    kind('test.live', { modes: ['failover'] }),
  ].map((known) => [known.name, known]),
);

async function problemsOf(edit: (text: string) => string): Promise<string> {
  const edited = edit(text);
  expect(edited).not.toBe(text);
  return errorOfKind(await failureOf((async () => parseRunbook(edited, 'x.yaml', registry))()), 'config').message;
}

describe('loading a runbook', () => {
  it('reads groups, defaults and modes', () => {
    const { stages } = parseRunbook(text, 'x.yaml', registry);
    expect(stages.map(({ name, groups }) => [name, groups.map((group) => group.map(({ id }) => id))])).toEqual([
      ['assess', [['look']]],
      ['restore', [['put', 'other']]],
      ['validate', [['after']]],
    ]);
    const put = stages[1]?.groups[0]?.[0];
    expect(put).toMatchObject({
      timeoutMs: 300_000,
      retries: 0,
      onFailure: 'stop',
      modes: ['failover', 'drill'],
      line: 11,
    });
    expect(stages[2]?.groups[0]?.[0]?.modes).toEqual(['failover']);
  });

  it.each<[string, (text: string) => string, RegExp]>([
    [
      'an unknown step',
      (t) => t.replace('uses: test.look', 'uses: test.lok'),
      /x\.yaml:8: there is no step "test\.lok"; did you mean test\.look\?/,
    ],
    [
      'an unknown parameter',
      (t) => t.replace('{ what:', '{ whot:'),
      /x\.yaml:11: step "put": test\.put has no parameter "whot"; did you mean what\?/,
    ],
    ['a missing parameter', (t) => t.replace(/ {10}with: .*\n/, ''), /x\.yaml:11: .*needs the parameter "what"/],
    [
      'a parameter of a wrong type',
      (t) => t.replace('{ what:', '{ size: big, what:'),
      /x\.yaml:11: step "put": size: must be a number, not the text "big"/,
    ],
    [
      'an unknown output',
      (t) => t.replace('outputs.found', 'outputs.fund'),
      /has no output "fund"; did you mean found\?/,
    ],
    [
      'an output of a wrong type',
      (t) => t.replace('outputs.found', 'outputs.count'),
      /what: wants string, but the reference gives number/,
    ],
    [
      'an unknown step in a reference',
      (t) => t.replace('steps.look.', 'steps.lok.'),
      /no step with the id "lok"; did you mean look\?/,
    ],
    [
      'a reference to a step beside it',
      (t) => t.replace('steps.look.', 'steps.other.'),
      /"other" has not finished when "put" starts/,
    ],
    ['a reference to itself', (t) => t.replace('steps.look.', 'steps.put.'), /a cycle: "put" itself waits for "put"/],
    ['a reference to nothing', (t) => t.replace('run.site', 'run.sight'), /a run has no "sight"/],
    [
      'a reference that is none',
      (t) => t.replace('steps.look.outputs.found', 'steps.look'),
      /names nothing: write steps/,
    ],
    [
      'each without forEach',
      (t) =>
        t.replace('uses: test.look\n  restore', 'uses: test.put\n      with: { what: "${{ each.name }}" }\n  restore'),
      /each\.name is known only to steps with "forEach"/,
    ],
    ['a missing forEach', (t) => t.replace(/ {10}forEach: databases\n/, ''), /add "forEach: databases"/],
    [
      'a forEach too many',
      (t) => t.replace('uses: test.look\n', 'uses: test.look\n      forEach: data\n'),
      /test\.look runs once: remove "forEach"/,
    ],
    ['an id twice', (t) => t.replace('id: other', 'id: look'), /the id "look" is taken by the step of line 7/],
    ['an id that is none', (t) => t.replace('id: look', 'id: Look_1'), /x\.yaml:7: id: an id is of small letters/],
    [
      'an unknown key of a step',
      (t) => t.replace('timeout: 5m', 'timout: 5m'),
      /x\.yaml:14: unknown key "timout"; did you mean timeout\?/,
    ],
    [
      'an unknown key of the file',
      (t) => t.replace('summary:', 'sumary:'),
      /x\.yaml:3: unknown key "sumary"; did you mean summary\?/,
    ],
    ['an unknown stage', (t) => t.replace('  validate:', '  verify:'), /unknown key "verify"/],
    ['an unknown mode', (t) => t.replace('when: [failover]', 'when: [failovr]'), /x\.yaml:21/],
    [
      'a step that never runs',
      (t) => t.replace('uses: test.after\n      when: [failover]', 'uses: test.live\n      when: [drill]'),
      /it never runs/,
    ],
    [
      'a step whose source does not run in its mode',
      (t) => t.replace('uses: test.look\n  restore', 'uses: test.look\n      when: [failover]\n  restore'),
      /"look" does not run in a drill, but "put" does/,
    ],
    [
      'a source that may fail silently',
      (t) => t.replace('uses: test.look\n  restore', 'uses: test.look\n      onFailure: continue\n  restore'),
      /may fail without stopping the run/,
    ],
    [
      'a time that is none',
      (t) => t.replace('timeout: 5m', 'timeout: soon'),
      /x\.yaml:14: step "put": timeout: "soon" is not a length of time/,
    ],
    ['an undo that cannot be', (t) => t.replace('timeout: 5m', 'onFailure: undo'), /test\.put cannot be undone/],
    [
      'a missing forerunner',
      (t) => t.replace(/ {2}restore:[\s\S]*(?= {2}validate)/, ''),
      /in a failover, test\.after needs a step test\.put before it/,
    ],
    [
      'a source of a kind that has no part in a mode, and says so',
      (t) => t.replace('uses: test.look\n  restore', 'uses: test.live\n  restore'),
      /"look" does not run in a drill \(test\.live takes part in failover only\), but "put" does: limit it with "when"/,
    ],
    [
      'stages in another order',
      (t) => t.replace('  restore:', '  stabilize: []\n  restore:'),
      /x\.yaml:10: stage "restore" runs before "stabilize", so it has to stand before it; the order is assess, activate, restore,/,
    ],
    [
      'a name where a list belongs',
      (t) => t.replace('timeout: 5m', 'approval: { prompt: "Go?", by: Ada }'),
      /x\.yaml:14: step "put": approval\.by: must be a list, as \[A, B\], not the text "Ada"/,
    ],
    [
      'an approval that asks nothing',
      (t) => t.replace('timeout: 5m', 'approval: { by: [Ada] }'),
      /x\.yaml:14: step "put": approval\.prompt: is missing; it must be a text/,
    ],
    [
      'an approval that refers to nothing',
      (t) => t.replace('timeout: 5m', 'approval: { prompt: "${{ steps.look.outputs.fund }}?" }'),
      /x\.yaml:11: step "put": approval\.prompt: test\.look has no output "fund"; did you mean found\?/,
    ],
    [
      'an unknown way to fail',
      (t) => t.replace('timeout: 5m', 'onFailure: retry'),
      /x\.yaml:14: step "put": onFailure: must be one of stop, continue, undo, not "retry"/,
    ],
    ['a newer version', (t) => t.replace('version: 1', 'version: 2'), /x\.yaml:1: version: must be 1/],
    ['YAML that is none', (t) => t.replace('stages:', 'stages: ['), /this is not YAML/],
    [
      'a key twice',
      (t) => t.replace('name: test', 'name: test\nname: again'),
      /this is not YAML: Map keys must be unique/,
    ],
  ])('refuses %s', async (_, edit, message) => {
    expect(await problemsOf(edit)).toMatch(message);
  });

  it('lists all problems at once, in the order of the file', async () => {
    const message = await problemsOf((t) =>
      t.replace('id: look', 'id: look\n      timeout: never').replace('timeout: 5m', 'timeout: soon'),
    );
    expect(message).toMatch(/2 problems:[\s\S]*"never"[\s\S]*"soon"/);
  });

  it('names the runbooks that there are', async () => {
    const error = errorOfKind(await failureOf(loadRunbook(shippedRunbooks, 'failovr', stepRegistry)), 'not-found');
    expect(error.message).toBe(
      'there is no runbook "failovr"; did you mean failover? Known are corruption, failback, failover, region-evacuation, switchover (come with dr)',
    );
  });

  it('refuses the shipped failover without its fence', async () => {
    const shipped = await loadRunbook(shippedRunbooks, 'failover', stepRegistry);
    const without = shipped.source.text.replace(/ {4}- id: fence[\s\S]*?(?= {4}- id: promote)/, '');
    const error = await failureOf((async () => parseRunbook(without, 'f.yaml', stepRegistry))());
    expect(errorOfKind(error, 'config').message).toMatch(/database\.promote needs a step database\.fence before it/);
  });
});
