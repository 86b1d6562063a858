import { jsonSchema } from '../src/config/schema.ts';

/** Every generated file of the repository with its content, by path from the top of the repository. */
export function generatedFiles(): Map<string, string> {
  return new Map([['config/dr.schema.json', `${JSON.stringify(jsonSchema(), undefined, 2)}\n`]]);
}
