import { readFileSync } from 'node:fs';
import { stringify } from 'yaml';
import { featureSummaries, type Right, rights, rightsFeatures, stepRights } from '../src/cluster/rights.ts';

const document = new URL('../docs/kubernetes.md', import.meta.url);
const markers = {
  begin: '<!-- rights: generated from src/cluster/rights.ts by "npm run generate" -->',
  end: '<!-- rights: end -->',
};

/** The table of rights as the templates of the chart read it. */
export function chartRights(): string {
  const head = '# Generated from src/cluster/rights.ts by "npm run generate": change it there.\n';
  return head + stringify({ features: rights, steps: stepRights }, { lineWidth: 0, aliasDuplicateObjects: false });
}

/** docs/kubernetes.md with the table of rights, between its two markers, as the code has them now. */
export function rightsReference(): string {
  const text = readFileSync(document, 'utf8');
  const [begin, end] = [text.indexOf(markers.begin), text.indexOf(markers.end)];
  if (begin < 0 || end < begin) throw new Error('docs/kubernetes.md has lost the markers of the table of rights');
  const sections = rightsFeatures.map((feature) => {
    if (feature !== 'steps')
      return [`### ${feature}`, featureSummaries[feature], tableOf(rights[feature])].join('\n\n');
    const steps = Object.entries(stepRights).map(([name, list]) => `\`${name}\`\n\n${tableOf(list)}`);
    return ['### steps', featureSummaries.steps, ...steps].join('\n\n');
  });
  return `${text.slice(0, begin)}${markers.begin}\n\n${sections.join('\n\n')}\n\n${text.slice(end)}`;
}

const places: Readonly<Record<Right['scope'], string>> = {
  cluster: 'everywhere',
  namespaces: '`rights.namespaces`',
  own: "dr's own namespace",
};

function tableOf(list: readonly Right[]): string {
  const code = (values: readonly string[]) => values.map((value) => `\`${value || '""'}\``).join(', ');
  const rows = list.map(({ apiGroups, resources, resourceNames, verbs, scope, why }) => {
    const named = resourceNames ? ` named ${code(resourceNames)}` : '';
    return `| ${code(apiGroups)} | ${code(resources)}${named} | ${verbs.join(', ')} | ${places[scope]} | ${why.replaceAll('|', '\\|')} |`;
  });
  return ['| API groups | Resources | Verbs | Where | Why |', '| --- | --- | --- | --- | --- |', ...rows].join('\n');
}
