import { describe, expect, test } from 'vitest';
import { DrError } from '../../src/base/errors.ts';
import { registerSecret } from '../../src/base/redact.ts';
import { ConfigError } from '../../src/config/problems.ts';
import { renderError, reportError } from '../../src/report/error.ts';
import { type Column, renderFacts, renderMarkdownTable, renderTable, width } from '../../src/report/table.ts';
import { count, formatAge, formatRate, formatTime, list, renderJson } from '../../src/report/values.ts';

describe('tables', () => {
  const columns: readonly Column<{ name: string; size: number }>[] = [
    { title: 'NAME', value: (row) => row.name },
    { title: 'SIZE', value: (row) => String(row.size), align: 'right' },
  ];

  test('columns are as wide as their widest cell, numbers stand to the right', () => {
    expect(
      renderTable(columns, [
        { name: 'orders', size: 5 },
        { name: 'up', size: 12345 },
      ]),
    ).toBe('NAME     SIZE\norders      5\nup      12345');
  });

  test('nothing to list is nothing: the caller says so in words', () => {
    expect(renderTable(columns, [])).toBe('');
  });

  test('names cannot move the cursor, wide characters keep the alignment', () => {
    const lines = renderTable(columns, [
      { name: 'a\nb\u001b[2J', size: 1 },
      { name: '日本', size: 2 },
    ]).split('\n');
    expect(lines).toHaveLength(3);
    expect(lines[1]).toContain('a\\nb\\x1b[2J');
    expect(new Set(lines.map(width)).size).toBe(1);
  });

  test('Markdown', () => {
    expect(renderMarkdownTable(columns, [{ name: 'a|b', size: 1 }])).toBe(
      '| NAME | SIZE |\n| --- | ---: |\n| a\\|b | 1 |',
    );
  });

  test('facts leave out what is not known', () => {
    expect(
      renderFacts([
        ['RTO', '4 min'],
        ['approved by', undefined],
        ['recovered to', 'latest'],
      ]),
    ).toBe('RTO:          4 min\nrecovered to: latest');
  });
});

describe('values', () => {
  test('times, ages, rates, counts', () => {
    const at = Date.parse('2026-11-23T05:01:02.345Z');
    expect(formatTime(at)).toBe('2026-11-23 05:01:02 UTC');
    expect(formatTime(at, true)).toBe('2026-11-23 05:01:02.345 UTC');
    expect(formatAge(at - 182_000, at)).toBe('3 min 2 s ago');
    expect(formatAge(at + 14_400_000, at)).toBe('in 4 h');
    expect(formatAge(at - 500, at)).toBe('now');
    expect(formatRate(10 * 2 ** 20, 2000)).toBe('5.0 MiB/s');
    expect(formatRate(5, 0)).toBe('-');
    expect([0, 1, 2].map((n) => count(n, 'backup'))).toEqual(['no backups', 'one backup', '2 backups']);
    expect(list(['a', 'b', 'c'])).toBe('a, b and c');
  });

  test('JSON has LSNs as text and no secrets', () => {
    registerSecret('hunter2-hunter2');
    const text = renderJson({
      lsn: 0x16b3748n,
      set: new Set([1]),
      deep: [{ url: 'postgresql://u:hunter2-hunter2@h/db' }],
      bytes: new Uint8Array(3),
    });
    expect(JSON.parse(text)).toEqual({
      lsn: '23803720',
      set: [1],
      deep: [{ url: 'postgresql://u:***@h/db' }],
      bytes: { bytes: 3 },
    });
    expect(text.endsWith('\n')).toBe(true);
  });
});

describe('errors', () => {
  test('one block: what, where, why (each cause once), what to do next', () => {
    const root = new Error('connect ECONNREFUSED 127.0.0.1:9000');
    const middle = new Error('socket: connect ECONNREFUSED 127.0.0.1:9000', { cause: root });
    const error = new DrError('unreachable', 'vault west does not answer', {
      where: 's3://acme-dr/prod',
      next: 'Check the network.',
      cause: middle,
    });
    expect(renderError(reportError(error))).toBe(
      [
        'dr: vault west does not answer',
        '  where: s3://acme-dr/prod',
        '  why:   socket: connect ECONNREFUSED 127.0.0.1:9000',
        '  next:  Check the network.',
        '',
      ].join('\n'),
    );
    expect(reportError(error).kind).toBe('unreachable');
  });

  test('what nobody foresaw is a defect; a file error and an abort are not', () => {
    expect(reportError(new TypeError('x is not a function'))).toMatchObject({
      kind: 'internal',
      message: 'unexpected error: x is not a function',
    });
    expect(reportError('thrown text')).toMatchObject({ kind: 'internal', message: 'unexpected error: thrown text' });
    const full = Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC', path: '/srv/x' });
    expect(reportError(full)).toMatchObject({
      kind: 'local',
      where: '/srv/x',
      next: expect.stringContaining('Free space'),
    });
    expect(reportError(AbortSignal.abort().reason)).toMatchObject({ kind: 'interrupted' });
  });

  test('a configuration lists its problems for programs too, and secrets are taken out everywhere', () => {
    registerSecret('swordfish-42');
    const error = new ConfigError('/etc/dr.yaml', [
      { path: ['databases', 'orders', 'url'], reason: 'is swordfish-42', line: 3, column: 7 },
    ]);
    const report = reportError(error);
    expect(report.problems).toEqual([{ path: 'databases.orders.url', reason: 'is ***', line: 3, column: 7 }]);
    expect(renderError(report)).not.toContain('swordfish');
    expect(renderError(report)).toContain('databases.orders.url: is *** (line 3, column 7)');
  });

  test('causes that are a circle end', () => {
    const a = new Error('a');
    const b = new Error('b', { cause: a });
    a.cause = b;
    expect(reportError(new DrError('local', 'top', { cause: a })).causes).toEqual(['a', 'b']);
  });
});
