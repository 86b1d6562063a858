import { jsonSchema } from '../src/config/schema.ts';
import { commandReference } from './command-reference.ts';
import { configurationReference } from './configuration-reference.ts';
import { chartRights, rightsReference } from './rights-reference.ts';
import { runbookReference } from './runbook-reference.ts';

/** Every generated file of the repository with its content, by path from the top of the repository. */
export function generatedFiles(): Map<string, string> {
  const schema = jsonSchema();
  return new Map([
    ['config/dr.schema.json', `${JSON.stringify(schema, undefined, 2)}\n`],
    ['docs/configuration.md', configurationReference(schema)],
    ['docs/commands.md', commandReference()],
    ['docs/runbooks.md', runbookReference()],
    ['docs/kubernetes.md', rightsReference()],
    ['helm/dr/files/rights.yaml', chartRights()],
  ]);
}
