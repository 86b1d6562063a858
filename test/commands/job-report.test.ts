import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { loggedProgress, shortened, writeResult } from '../../src/commands/job-report.ts';
import { readBackupOutcome } from '../../src/daemon/command-results.ts';
import { memoryLog } from '../daemon/support.ts';
import { tempDir } from '../harness/temp.ts';

const backup = {
  resource: 'uploads',
  id: '20261123T120000Z-abc',
  vaults: ['east', 'west'],
  lost: [],
  logicalBytes: 5,
  storedBytes: 3,
};

test('the result of a Job fits into a termination message whatever it holds, and keeps what the daemon reads', () => {
  const notes = Array.from({ length: 3000 }, (_, i) => ({
    kind: 'unreadable',
    subject: `/data/ä/${i}`.repeat(40),
    detail: 'EACCES',
  }));
  const text = shortened({ ok: false, command: 'backup', result: { backups: [{ ...backup, notes }] } });
  expect(Buffer.byteLength(text)).toBeLessThanOrEqual(4096);
  expect(readBackupOutcome(JSON.parse(text).result, 'uploads')).toMatchObject({
    id: backup.id,
    vaults: ['east', 'west'],
  });
  expect(shortened({ ok: true, result: { backups: [backup] } })).toBe(
    JSON.stringify({ ok: true, result: { backups: [backup] } }),
  );
});

test('it is written where the environment says; a place that cannot be written stops nothing', async () => {
  const { log, lines } = memoryLog();
  const path = join(await tempDir('report'), 'termination-log');
  writeResult(path, { ok: true }, log);
  expect(readFileSync(path, 'utf8')).toBe('{"ok":true}');
  writeResult(undefined, { ok: true }, log);
  expect(lines).toEqual([]);
  writeResult('/nowhere/termination-log', { ok: true }, log);
  expect(lines).toMatchObject([{ level: 'warn' }]);
});

test('progress is logged every five seconds at most', () => {
  const { log, lines } = memoryLog();
  let nowMs = 0;
  const onProgress = loggedProgress(log, () => nowMs);
  for (; nowMs <= 11_000; nowMs += 1000) onProgress({ task: 'backup x', done: nowMs, total: 11_000, unit: 'bytes' });
  expect(lines.map(({ facts }) => (facts as { progress: { done: number } }).progress.done)).toEqual([0, 5000, 10_000]);
});
