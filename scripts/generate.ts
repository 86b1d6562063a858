// Writes what is generated from the code: the JSON schema and the references in docs/. With --check, nothing is written and
// the exit code is 1 when a file is not what the code says.
import { readFileSync, writeFileSync } from 'node:fs';
import { generatedFiles } from './generated-files.ts';

const check = process.argv.includes('--check');
const stale: string[] = [];
for (const [path, wanted] of generatedFiles()) {
  const file = new URL(`../${path}`, import.meta.url);
  let found = '';
  try {
    found = readFileSync(file, 'utf8');
  } catch {
    // Not there yet: generated below, or reported.
  }
  if (found === wanted) continue;
  stale.push(path);
  if (!check) writeFileSync(file, wanted);
}
if (!check) console.log(stale.length === 0 ? 'Everything generated is up to date.' : `Written: ${stale.join(', ')}`);
else if (stale.length > 0) {
  console.error(`Not up to date: ${stale.join(', ')}. Run "npm run generate" and commit the result.`);
  process.exitCode = 1;
}
