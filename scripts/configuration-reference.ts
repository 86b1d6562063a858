import { cadenceForms } from '../src/config/cadence.ts';

/** A JSON schema node, as far as the reference needs it. */
interface Node {
  readonly description?: string;
  readonly default?: unknown;
  readonly type?: string | readonly string[];
  readonly enum?: readonly unknown[];
  readonly const?: unknown;
  readonly properties?: Readonly<Record<string, Node>>;
  readonly required?: readonly string[];
  readonly additionalProperties?: Node | boolean;
  readonly items?: Node;
  readonly anyOf?: readonly Node[];
}

interface Line {
  readonly key: string;
  readonly node: Node;
  readonly required: boolean;
}

const introduction = `# Configuration

<!-- Generated from src/config/schema.ts by "npm run generate": change it there. -->

One YAML file: \`--config FILE\`, else \`$DR_CONFIG\`, else \`config/dr.yaml\`, which comes with dr and holds the seed policy.
\`dr validate\` names every mistake with its line. Editors check it while you type with \`config/dr.schema.json\`.

- **References**: \`\${NAME}\` is taken from the environment, \`\${NAME:-default}\` has a default, \`$\${\` is a plain \`\${\`. What they
  hold is never logged when it is, or holds, a secret. A variable that is not set is an error.
- **Lengths of time**: \`5s\`, \`15m\`, \`6 hours\`, \`30 days\`, \`1 year\` (365 days), \`1h 30m\`.
- **Cadences**: ${cadenceForms.replace(/"([^"]+)"/, '`$1`')}; for configuration also \`on change\`, \`on change after 10s\`.
  Clock times and cron expressions are UTC unless a time zone follows. What runs at the same cadence is spread: by up to
  5 minutes for intervals, 30 seconds for clock times, always the same for one name.
- **Names** of vaults, sites and resources: up to 63 letters, digits, \`-\` and \`_\`. Every resource has a name of its own.
- **Unknown keys** are refused. So is a cadence that cannot meet its objective, and copies that all lie in one region.
- The **decryption identity** is never in this file: \`--identity FILE\` or \`$DR_IDENTITY_FILE\`.
- The **site** a process runs at: \`--site NAME\` or \`$DR_SITE\`, else the active site of the file.
`;

/** `docs/configuration.md`: every key with its default and what it does, one table per section. */
export function configurationReference(schema: object): string {
  const { properties = {}, required = [] } = schema as Node;
  const simple: Line[] = [];
  const sections: string[] = [];
  for (const [key, node] of Object.entries(properties)) {
    const lines = linesOf(key, node, required.includes(key));
    if (lines.length === 1) simple.push(...lines);
    else sections.push(`## ${key}\n\n${node.description ?? ''}\n\n${table(lines.slice(1))}`);
  }
  return `${[introduction.trimEnd(), `## At the top\n\n${table(simple)}`, ...sections].join('\n\n')}\n`;
}

/** The key itself, then everything below it, with dots between; names that the user chooses are in angle brackets. */
function linesOf(key: string, node: Node, required: boolean): Line[] {
  const own = { key, node, required };
  if (node.properties) return [own, ...below(key, node)];
  if (typeof node.additionalProperties === 'object') {
    const name = `${key}.<${key.endsWith('recover') || key.endsWith('endpoints') ? 'site' : 'name'}>`;
    const inner = node.additionalProperties;
    return [own, ...(inner.properties ? below(name, inner) : [])];
  }
  if (node.items?.properties) return [own, ...below(`${key}[]`, node.items)];
  const branch = node.anyOf?.find((option) => option.properties);
  return branch ? [own, ...below(key, branch)] : [own];
}

function below(key: string, node: Node): Line[] {
  return Object.entries(node.properties ?? {}).flatMap(([name, inner]) =>
    linesOf(`${key}.${name}`, inner, node.required?.includes(name) ?? false),
  );
}

function table(lines: readonly Line[]): string {
  const rows = lines.map(
    ({ key, node, required }) => `| \`${key}\` | ${defaultOf(node, required)} | ${meaning(node)} |`,
  );
  return ['| Key | Default | Meaning |', '| --- | --- | --- |', ...rows].join('\n');
}

function defaultOf(node: Node, required: boolean): string {
  if (required) return '**required**';
  const value = node.default;
  if (value === undefined || (typeof value === 'object' && value !== null && Object.keys(value).length === 0))
    return '';
  return `\`${typeof value === 'string' ? value : JSON.stringify(value)}\``;
}

function meaning(node: Node): string {
  const choices = node.enum ? ` One of ${node.enum.map((choice) => `\`${String(choice)}\``).join(', ')}.` : '';
  return `${node.description ?? ''}${choices}`.replace(/\|/g, '\\|').replace(/<([^>]*)>/g, '`<$1>`');
}
