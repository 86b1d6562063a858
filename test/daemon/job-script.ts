// Stands for the image in tests of the executor: does what the name of the resource says, and tells it as dr does.
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const at = process.argv.findIndex((word) => word === 'backup' || word === 'verify');
const [verb = '', resource = ''] = process.argv.slice(at);
const resultFile = process.env['DR_RESULT_FILE'] ?? '';
const home = process.env['HOME'] ?? '';

process.stderr.write(
  `${JSON.stringify({ level: 30, progress: { task: 'x', done: 42, total: 100, unit: 'objects' }, msg: 'progress' })}\n`,
);
if (resource === 'slow') {
  while (!existsSync(join(home, 'go'))) await new Promise((resolve) => setTimeout(resolve, 20));
}
if (resource === 'crash') throw new Error('it crashed before it could say why');
const error = { kind: 'unreachable', message: 'the database does not answer', where: 'db:5432', next: 'Start it.' };
const backup = {
  resource,
  id: `id-of-${resource}`,
  vaults: ['east'],
  lost: [],
  logicalBytes: 1,
  storedBytes: 1,
  notes: [],
};
const ok = resource !== 'bad';
const document = ok
  ? { ok, command: verb, result: { backups: [backup] } }
  : { ok, command: verb, result: { backups: [{ resource, error }] } };
writeFileSync(resultFile, JSON.stringify(document));
process.exit(ok ? 0 : 9);
