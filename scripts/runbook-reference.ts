import { readFileSync } from 'node:fs';
import { z } from 'zod';
import { formatDuration } from '../src/base/units.ts';
import type { StepKind } from '../src/steps/contract.ts';
import { stepRegistry } from '../src/steps/registry.ts';

const document = new URL('../docs/runbooks.md', import.meta.url);
const markers = {
  begin: '<!-- steps: generated from src/steps/registry.ts by "npm run generate" -->',
  end: '<!-- steps: end -->',
};

/** docs/runbooks.md with the reference of all steps, between its two markers, as the registry has them now. */
export function runbookReference(): string {
  const text = readFileSync(document, 'utf8');
  const [begin, end] = [text.indexOf(markers.begin), text.indexOf(markers.end)];
  if (begin < 0 || end < begin) throw new Error('docs/runbooks.md has lost the markers of the step reference');
  const reference = [...stepRegistry.values()].map(describeStep).join('\n');
  return `${text.slice(0, begin)}${markers.begin}\n\n${reference}\n${text.slice(end)}`;
}

function describeStep(kind: StepKind): string {
  const facts = [
    `Modes: ${kind.modes.join(', ')}.`,
    kind.over ? `Needs \`forEach: ${kind.over}\`.` : '',
    kind.effect === 'changes' ? 'Leaves something behind.' : 'Only looks.',
    kind.runsInPlan ? 'A plan runs it.' : '',
    kind.undoable ? 'Can be undone.' : '',
    `Limit of one attempt: ${formatDuration(kind.timeoutMs)}.`,
  ];
  const lines = [`### ${kind.name}`, '', `${kind.summary}.`, '', facts.filter((fact) => fact !== '').join(' ')];
  if (kind.inDrill) lines.push('', `In a drill: ${kind.inDrill}`);
  for (const { uses, modes } of kind.after) lines.push('', `Needs a \`${uses}\` before it in: ${modes.join(', ')}.`);
  const fields = (title: string, schema: z.ZodObject, io: 'input' | 'output') => {
    const rows = Object.entries(schema.shape).map(([name, field]) => describeField(name, field as z.ZodType, io));
    if (rows.length > 0) lines.push('', `| ${title} | Type | |`, '| --- | --- | --- |', ...rows);
  };
  fields('Parameter', kind.params, 'input');
  fields('Output', kind.outputs, 'output');
  return `${lines.join('\n')}\n`;
}

function describeField(name: string, schema: z.ZodType, io: 'input' | 'output'): string {
  const json = z.toJSONSchema(schema, { unrepresentable: 'any', io });
  const type = typeText(json);
  const optional = io === 'input' && schema.safeParse(undefined).success;
  const fallback = json.default === undefined ? '' : ` Default \`${JSON.stringify(json.default)}\`.`;
  return `| \`${name}\`${optional ? ' (optional)' : ''} | ${type} | ${(json.description ?? '').replaceAll('|', '\\|')}${fallback} |`;
}

/** `string`, `"stop" or "go-on"`, `number or string`. */
function typeText(json: Readonly<Record<string, unknown>>): string {
  if (Array.isArray(json['enum'])) return json['enum'].map((value) => `\`${String(value)}\``).join(', ');
  if (json['const'] !== undefined) return `\`${String(json['const'])}\``;
  if (Array.isArray(json['anyOf']))
    return json['anyOf'].map((part) => typeText(part as Record<string, unknown>)).join(' or ');
  if (json['oneOf'] !== undefined) return 'object';
  return String(json['type'] ?? 'any');
}
