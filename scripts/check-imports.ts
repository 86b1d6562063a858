// Refuses what design.md section 3 forbids: imports against the direction, adapters that know each other, circles, files too
// long to read, and effects outside the files that may have them. `node scripts/check-imports.ts [root]`.
import { resolve } from 'node:path';
import { checkArchitecture } from './architecture.ts';

const root = resolve(process.argv[2] ?? new URL('..', import.meta.url).pathname);
const offences = checkArchitecture(root);
for (const { file, line, rule } of offences) console.error(`${file}:${line}: ${rule}`);
if (offences.length > 0) {
  console.error(
    `${offences.length === 1 ? 'One offence' : `${offences.length} offences`} against the shape of the code (docs/design.md).`,
  );
  process.exitCode = 1;
}
