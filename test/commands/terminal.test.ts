import { describe, expect, test } from 'vitest';
import { Terminal } from '../../src/commands/terminal.ts';

const mib = 2 ** 20;

function terminal(
  options: { isTTY?: boolean; columns?: number; env?: Record<string, string>; progress?: boolean } = {},
) {
  let written = '';
  let nowMs = 0;
  const screen = new Terminal({
    output: {
      write: (text: string) => (written += text),
      isTTY: options.isTTY ?? true,
      columns: options.columns ?? 120,
    },
    env: options.env ?? { NO_COLOR: '1' },
    now: () => nowMs,
    progress: options.progress ?? true,
  });
  return {
    screen,
    at: (ms: number, task: string, done: number, total: number, detail?: string) => {
      nowMs = ms;
      screen.onProgress({ task, done, total, unit: 'bytes', ...(detail === undefined ? {} : { detail }) });
    },
    /** What was written since the last call. */
    take: () => {
      const text = written;
      written = '';
      return text;
    },
    /** What a person sees: the text with the moves of the cursor done. */
    visible: (text: string) => {
      const lines: string[] = [''];
      for (const part of text.replaceAll('\u001b', '␛').split(/(␛\[\d*[AJ]|\r|\n)/)) {
        const up = /^␛\[(\d+)A$/.exec(part);
        if (up) lines.splice(lines.length - 1 - Number(up[1]), Number(up[1]));
        else if (part === '\n') lines.push('');
        else if (!/^(\r|␛\[0J)$/.test(part)) lines[lines.length - 1] += part;
      }
      return lines.filter((line) => line !== '');
    },
  };
}

describe('on a terminal', () => {
  test('the first two seconds show nothing, then one line moves: share, bytes, rate, time left', () => {
    const { at, take, visible } = terminal();
    at(0, 'backup orders', 0, 100 * mib);
    at(1900, 'backup orders', 19 * mib, 100 * mib);
    expect(take()).toBe('');
    at(2000, 'backup orders', 20 * mib, 100 * mib, 'base/16384/1234');
    const first = take();
    expect(visible(first)).toEqual([
      'backup orders  [====>               ] 20 %  20.0 MiB of 100 MiB  10.0 MiB/s  8 s left  base/16384/1234',
    ]);
    at(2050, 'backup orders', 20.5 * mib, 100 * mib);
    expect(take()).toBe('');
    at(4000, 'backup orders', 40 * mib, 100 * mib);
    expect(visible(first + take())).toEqual([expect.stringContaining('40 %')]);
  });

  test('several tasks have a line each; a finished one leaves what it took', () => {
    const { at, take, visible, screen } = terminal();
    at(0, 'a', 0, 10 * mib);
    at(0, 'b', 0, 0);
    at(3000, 'a', 5 * mib, 10 * mib);
    at(3200, 'b', 3 * mib, 0);
    at(5000, 'a', 10 * mib, 10 * mib);
    const text = take();
    expect(visible(text)).toEqual(['a: 10.0 MiB in 5 s (2.0 MiB/s)', expect.stringMatching(/^b {2}3\.0 MiB/)]);
    screen.line('warning: something');
    const more = text + take();
    expect(visible(more)).toEqual([
      'a: 10.0 MiB in 5 s (2.0 MiB/s)',
      'warning: something',
      expect.stringMatching(/^b/),
    ]);
    screen.close();
    expect(visible(more + take())).toEqual(['a: 10.0 MiB in 5 s (2.0 MiB/s)', 'warning: something']);
  });

  test('a line is never wider than the terminal, whatever it names', () => {
    const { at, take, visible } = terminal({ columns: 60 });
    at(0, 'backup uploads', 0, 10);
    at(2500, 'backup uploads', 5, 10, `bad\nname\u001b[2J${'x'.repeat(200)}`);
    const lines = visible(take());
    expect(lines).toHaveLength(1);
    expect(lines[0]?.length).toBeLessThan(60);
  });

  test('NO_COLOR means none; without it the name is bold', () => {
    for (const [env, bold] of [
      [{ NO_COLOR: '1' }, false],
      [{ NO_COLOR: '' }, true],
      [{}, true],
    ] as const) {
      const { at, take } = terminal({ env });
      at(0, 'task', 0, 10);
      at(2500, 'task', 5, 10);
      expect(take().includes('\u001b[1m')).toBe(bold);
    }
  });

  test('a task that finishes at once leaves no trace', () => {
    const { at, take } = terminal();
    at(0, 'quick', 0, 10);
    at(500, 'quick', 10, 10);
    expect(take()).toBe('');
  });
});

describe('elsewhere', () => {
  test.each([
    ['a pipe', { isTTY: false }],
    ['a dumb terminal', { env: { TERM: 'dumb' } }],
  ])('%s gets a plain line at most every 10 s, and no escapes', (_, options) => {
    const { at, take } = terminal(options);
    for (let ms = 0; ms <= 35_000; ms += 500) at(ms, 'backup orders', ms, 100_000);
    const text = take();
    expect(text.split('\n').filter(Boolean)).toHaveLength(3);
    expect(text).not.toContain('\u001b');
    at(40_000, 'backup orders', 100_000, 100_000);
    expect(take()).toMatch(/^backup orders: .* in 40 s/);
  });

  test('without progress there is silence, but lines are still written', () => {
    const { at, take, screen } = terminal({ progress: false });
    for (let ms = 0; ms <= 35_000; ms += 500) at(ms, 'backup orders', ms, 100_000);
    expect(take()).toBe('');
    screen.line('warning');
    expect(take()).toBe('warning\n');
  });
});
