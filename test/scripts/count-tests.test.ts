import { spawnSync } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const script = fileURLToPath(new URL('../../scripts/count-tests.mjs', import.meta.url));

async function count(report: string, checked: string): Promise<{ status: number | null; stdout: string }> {
  const directory = await mkdtemp(join(tmpdir(), 'dr-count-'));
  await writeFile(join(directory, 'tests.json'), report);
  const { status, stdout } = spawnSync(process.execPath, [script, join(directory, 'tests.json'), checked], {
    encoding: 'utf8',
  });
  await rm(directory, { recursive: true });
  return { status, stdout };
}

const file = (status: string, ...tests: string[]) => ({
  status,
  assertionResults: tests.map((each) => ({ status: each })),
});
const report = (...files: object[]) => JSON.stringify({ testResults: files });

test.each([
  [
    'all good',
    report(file('passed', 'passed', 'passed', 'skipped', 'pending', 'todo')),
    '0',
    '2 passed, 0 failed, 3 skipped\n',
    0,
  ],
  ['a failed test', report(file('failed', 'passed', 'failed')), '0', '1 passed, 1 failed, 0 skipped\n', 1],
  [
    'a file that could not be loaded',
    report(file('failed'), file('passed', 'passed')),
    '0',
    '1 passed, 1 failed, 0 skipped\n',
    1,
  ],
  ['a failed check', report(file('passed', 'passed')), '2', '1 passed, 1 failed, 0 skipped\n', 1],
  ['no report', 'not JSON', '0', '0 passed, 1 failed, 0 skipped\n', 1],
])('%s', async (_, content, checked, stdout, status) => {
  expect(await count(content, checked)).toEqual({ status, stdout });
});
