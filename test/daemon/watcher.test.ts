import { mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { FSWatcher } from 'chokidar';
import { afterEach, expect, test } from 'vitest';
import { systemClock } from '../../src/base/clock.ts';
import { DirectoryWatcher, type WatcherOptions } from '../../src/daemon/watcher.ts';
import { tempDir } from '../harness/temp.ts';
import { memoryLog } from './support.ts';

const watchers: DirectoryWatcher[] = [];
afterEach(async () => {
  await Promise.all(watchers.splice(0).map((watcher) => watcher.stop(0)));
});

/** A watcher on a new directory, ready, with the changes that it tells of. */
async function watch(options: Partial<WatcherOptions> = {}) {
  const path = options.path ?? (await tempDir('watch'));
  const { log, lines } = memoryLog();
  const waiting: Array<() => void> = [];
  const seen = { changes: 0 };
  let ready: () => void = () => {};
  const isReady = new Promise<void>((resolve) => {
    ready = resolve;
  });
  const watcher = new DirectoryWatcher({
    resource: 'settings',
    path,
    exclude: [],
    quietMs: 50,
    pollMs: 20,
    checkMs: 20,
    clock: systemClock,
    log,
    createWatcher: (chosen) => new FSWatcher(chosen).once('ready', () => ready()),
    ...options,
    onChange: () => {
      seen.changes++;
      for (const wake of waiting.splice(0)) wake();
    },
  });
  watchers.push(watcher);
  const running = watcher.run();
  running.catch(() => {});
  const change = () => new Promise<void>((resolve) => waiting.push(resolve));
  return { path, watcher, running, lines, seen, change, isReady };
}

test('a change is told once it has settled: many writes are one change', async () => {
  const { path, seen, change, isReady } = await watch({ quietMs: 300 });
  await isReady;
  const changed = change();
  for (let i = 0; i < 10; i++) await writeFile(join(path, `file-${i}`), String(i));
  await changed;
  expect(seen.changes).toBe(1);
});

test('every kind of change is seen: a file replaced, renamed, removed, in a new folder', async () => {
  const { path, change, isReady } = await watch();
  await isReady;
  const steps = [
    () => writeFile(join(path, 'a'), '1'),
    () => writeFile(join(path, 'a'), 'two'),
    () => rename(join(path, 'a'), join(path, 'b')),
    () => mkdir(join(path, 'folder')),
    () => writeFile(join(path, 'folder', 'c'), '3'),
    () => rm(join(path, 'folder', 'c')),
  ];
  for (const step of steps) {
    const changed = change();
    await step();
    await changed;
  }
});

test('a directory that never rests is told of after a while all the same', async () => {
  const { path, change, isReady } = await watch({ quietMs: 60_000, atMostMs: 300 });
  await isReady;
  const changed = change();
  await writeFile(join(path, 'a'), '1');
  await changed;
});

test('what is excluded is not told of', async () => {
  const { path, seen, change, isReady } = await watch({ exclude: ['*.tmp', 'cache/**'] });
  await mkdir(join(path, 'cache'));
  await isReady;
  const changed = change();
  await writeFile(join(path, 'x.tmp'), '1');
  await writeFile(join(path, 'cache', 'y'), '1');
  await writeFile(join(path, 'counts'), '1');
  await changed;
  expect(seen.changes).toBe(1);
});

test('without watches left in the system files are looked at instead, with one line in the log', async () => {
  let made = 0;
  let polled: () => void = () => {};
  const polling = new Promise<void>((resolve) => {
    polled = resolve;
  });
  const { path, watcher, lines, change } = await watch({
    createWatcher: (options) => {
      const real = new FSWatcher(options);
      if (made++ === 0) {
        const full = Object.assign(new Error('ENOSPC: System limit for number of file watchers reached'), {
          code: 'ENOSPC',
        });
        setImmediate(() => real.emit('error', full));
      } else real.once('ready', () => polled());
      return real;
    },
  });
  // The switch itself counts as a change: what happened in between was not seen.
  await change();
  await polling;
  expect(watcher.polling).toBe(true);
  expect(lines.filter(({ level }) => level === 'warn')).toMatchObject([{ facts: { resource: 'settings', path } }]);
  const changed = change();
  await writeFile(join(path, 'a'), '1');
  await changed;
});

test('a directory that is not there, or goes, is a failure; once it is back everything counts as changed', async () => {
  const path = join(await tempDir('watch'), 'etc');
  const { running, watcher, change } = await watch({ path });
  await expect(running).rejects.toMatchObject({ kind: 'not-found', where: path });
  await mkdir(path);
  const changed = change();
  const again = expect(watcher.run()).rejects.toMatchObject({ where: path });
  await changed;
  await rm(path, { recursive: true });
  await again;
});
