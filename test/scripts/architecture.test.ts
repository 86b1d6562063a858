import { spawnSync } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { checkArchitecture } from '../../scripts/architecture.ts';

let root: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'dr-architecture-'));
});
afterEach(() => rm(root, { recursive: true, force: true }));

async function offences(files: Record<string, string>): Promise<string[]> {
  for (const [path, content] of Object.entries(files)) {
    await mkdir(dirname(join(root, path)), { recursive: true });
    await writeFile(join(root, path), content);
  }
  return checkArchitecture(root).map(({ file, line, rule }) => `${file}:${line}: ${rule}`);
}

describe('the shape of the code', () => {
  test('what design.md allows passes', async () => {
    expect(
      await offences({
        'src/base/a.ts': "import { pino } from 'pino';\nexport const a = pino;\n",
        'src/config/types.ts': "import { a } from '../base/a.ts';\nexport interface T { a: typeof a }\n",
        'src/vault/s3.ts':
          "import type { T } from '../config/types.ts';\nimport { type T as U } from '../config/types.ts';\nexport const s = (t: T, u: U) => [t, u];\n",
        'src/backup/take.ts':
          "import { s } from '../vault/s3.ts';\n// import { no } from '../main.ts'\nexport const take = s;\n",
        'src/report/show.ts':
          "import type { take } from '../backup/take.ts';\nexport const show = (t: typeof take) => String(t);\n",
        'src/main.ts':
          "import { take } from './backup/take.ts';\nprocess.stdout.write(String(take) + process.argv.length);\n",
      }),
    ).toEqual([]);
  });

  test.each([
    [
      'an import against the direction',
      { 'src/base/a.ts': "import { b } from '../vault/b.ts';\n", 'src/vault/b.ts': 'export const b = 1;\n' },
      'src/base/a.ts:1: imports point one way: base may import from nothing, not from vault',
    ],
    [
      'a re-export against it',
      { 'src/backup/a.ts': "\nexport * from '../daemon/b.ts';\n", 'src/daemon/b.ts': 'export const b = 1;\n' },
      'src/backup/a.ts:2: imports point one way',
    ],
    [
      'a dynamic import against it',
      { 'src/steps/a.ts': "export const a = () => import('../commands/b.ts');\n", 'src/commands/b.ts': '' },
      'src/steps/a.ts:1: imports point one way',
    ],
    [
      'an import over several lines',
      { 'src/vault/a.ts': "import {\n  b,\n} from '../backup/b.ts';\n", 'src/backup/b.ts': 'export const b = 1;\n' },
      'src/vault/a.ts:1: imports point one way',
    ],
    [
      'a worker by URL',
      {
        'src/vault/a.ts':
          "new URL(import.meta.url.endsWith('.ts') ? '../backup/b.ts' : '../backup/b.js', import.meta.url);\n",
        'src/backup/b.ts': '',
      },
      'src/vault/a.ts:1: imports point one way',
    ],
    [
      'adapters that know each other',
      { 'src/postgres/a.ts': "import type { B } from '../vault/b.ts';\n", 'src/vault/b.ts': 'export type B = 1;\n' },
      'src/postgres/a.ts:1: adapters never import each other',
    ],
    [
      'values where types are allowed',
      { 'src/report/a.ts': "import { b } from '../backup/b.ts';\n", 'src/backup/b.ts': 'export const b = 1;\n' },
      'report may import only types from backup',
    ],
    [
      'anything from main',
      { 'src/commands/a.ts': "import '../main.ts';\n", 'src/main.ts': '' },
      'src/commands/a.ts:1: imports point one way',
    ],
    [
      'the product on its tests',
      { 'src/base/a.ts': "import { t } from '../../test/t.ts';\n", 'test/t.ts': '' },
      'the product stands on src/ alone',
    ],
    [
      'a file that is not there',
      { 'src/base/a.ts': "import { t } from './gone.ts';\n" },
      'src/base/gone.ts, which does not exist',
    ],
    [
      'a circle',
      {
        'src/base/a.ts': "import { b } from './b.ts';\nexport const a = b;\n",
        'src/base/b.ts': "import { a } from './a.ts';\nexport const b = a;\n",
      },
      'circular import: src/base/a.ts → src/base/b.ts → src/base/a.ts',
    ],
    [
      'a file too long to read',
      { 'src/base/a.ts': '// x\n'.repeat(351) },
      'src/base/a.ts:351: 351 lines, more than 350',
    ],
    ['a room that nobody planned', { 'src/utils/a.ts': '' }, 'src/utils/a.ts:1: no room of design.md'],
    [
      'the environment, read below main',
      { 'src/vault/a.ts': '\nexport const a = process.env.HOME;\n' },
      'src/vault/a.ts:2: only src/main.ts touches arguments',
    ],
    [
      'signals, heard below main',
      { 'src/daemon/a.ts': "process.on('SIGTERM', () => {});\n" },
      'src/daemon/a.ts:1: only src/main.ts listens to signals',
    ],
    [
      'printing',
      { 'src/backup/a.ts': "process.stdout.write('x');\n" },
      'src/backup/a.ts:1: only src/main.ts and the log write',
    ],
  ] as [string, Record<string, string>, string][])('%s is refused', async (_, files, rule) => {
    const found = await offences(files);
    expect(found.join('\n')).toContain(rule);
    expect(found).toHaveLength(1);
  });

  test('types may be circular: they are gone at run time', async () => {
    expect(
      await offences({
        'src/base/a.ts': "import type { B } from './b.ts';\nexport type A = B | 1;\n",
        'src/base/b.ts': "import type { A } from './a.ts';\nexport type B = A | 2;\n",
      }),
    ).toEqual([]);
  });

  test('the program says where, and fails', async () => {
    await offences({
      'src/base/a.ts': "import { b } from '../vault/b.ts';\n",
      'src/vault/b.ts': 'export const b = 1;\n',
    });
    const script = fileURLToPath(new URL('../../scripts/check-imports.ts', import.meta.url));
    const { status, stderr } = spawnSync(process.execPath, [script, root], { encoding: 'utf8' });
    expect(status).toBe(1);
    expect(stderr).toContain('src/base/a.ts:1: imports point one way');
    expect(stderr).toContain('One offence against the shape of the code');
  });
});
