import { execFileSync } from 'node:child_process';
import { chownSync, existsSync, lstatSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { expect, test } from 'vitest';
import type { IndexEntry } from '../../src/backup/index-format.ts';
import { INCOMPLETE_MARKER, RestoreTarget } from '../../src/backup/restore-target.ts';
import { libc } from '../../src/base/libc.ts';
import { nodeBinary } from '../harness/process.ts';
import { tempDir } from '../harness/temp.ts';

function entry(name: string, more: Partial<IndexEntry> = {}): IndexEntry {
  return {
    path: Buffer.from(name),
    type: 'file',
    mode: 0o640,
    uid: 7,
    gid: 8,
    mtimeNs: 1_500_000_000_123_456_789n,
    size: 0,
    extents: [],
    ...more,
  };
}

const attribute = (name: string) => ({ name: Buffer.from(name), value: Buffer.from('x') });

async function place(target: RestoreTarget, file: IndexEntry): Promise<void> {
  const absolute = await target.place(file);
  writeFileSync(absolute, '');
  target.setAttributes(absolute, file);
}

test.runIf(process.platform === 'linux')('what could not be set is told in one line for each kind', async () => {
  const target = new RestoreTarget(path.join(await tempDir('unset'), 'x'), { owners: false });
  await target.prepare('a test');
  for (let i = 0; i < 3; i++) await place(target, entry(`f${i}`, { attributes: [attribute('nonsense.a')] }));
  await target.addOther(entry('d', { type: 'directory', mode: 0o755, attributes: [attribute('nonsense.b')] }));
  await target.complete();
  expect(target.warnings).toEqual([
    expect.stringMatching(/^nonsense\.a of 3 entries, the first f0: .*support/),
    expect.stringMatching(/^nonsense\.b of d: .*support/),
  ]);
});

// The flush of a whole file system takes the place of a thousand single ones: both ways end the same.
test.each([5, 1200])('with %d files everything has its attributes and the marker has gone', async (files) => {
  const root = path.join(await tempDir('many'), 'x');
  const target = new RestoreTarget(root, { owners: false });
  await target.prepare('a test');
  await target.addOther(entry('', { type: 'directory', mode: 0o750 }));
  await target.addOther(entry('closed', { type: 'directory', mode: 0o500, mtimeNs: 1_000_000_000_000_000_001n }));
  await target.addOther(entry('link', { type: 'symlink', target: Buffer.from('closed/f0') }));
  for (let i = 0; i < files; i++) await place(target, entry(`closed/f${i}`));
  expect(existsSync(path.join(root, INCOMPLETE_MARKER))).toBe(true);
  await target.complete();
  expect(readdirSync(root).sort()).toEqual(['closed', 'link']);
  expect(readdirSync(path.join(root, 'closed'))).toHaveLength(files);
  const exact = libc() !== undefined;
  for (const [name, mode, mtimeNs] of [
    ['', 0o750n, 1_500_000_000_123_456_789n],
    ['closed', 0o500n, 1_000_000_000_000_000_001n],
    ['link', 0o777n, 1_500_000_000_123_456_789n],
    [`closed/f${files - 1}`, 0o640n, 1_500_000_000_123_456_789n],
  ] as const) {
    const stats = lstatSync(path.join(root, name), { bigint: true });
    expect(stats.mode & 0o7777n, name).toBe(mode);
    expect(exact ? stats.mtimeNs : stats.mtimeNs / 1000n, name).toBe(exact ? mtimeNs : mtimeNs / 1000n);
  }
});

test('what lies elsewhere is restored there, a neighbour with a longer name among it', async () => {
  const root = path.join(await tempDir('elsewhere'), 'pg');
  const target = new RestoreTarget(root, {
    owners: false,
    relocate: (name) => (name.startsWith('space/') ? `${root}.tablespaces/1/${name.slice(6)}` : undefined),
  });
  await target.prepare('a test');
  await place(target, entry('space/deep/file'));
  await place(target, entry('here'));
  await target.complete();
  expect(readdirSync(root)).toEqual(['here']);
  expect(readFileSync(`${root}.tablespaces/1/deep/file`, 'utf8')).toBe('');
});

test.runIf(process.getuid?.() === 0)(
  'an ordinary user restores all but the owners and what only root may set',
  async () => {
    const home = await tempDir('user');
    chownSync(home, 12345, 12345);
    const restoreTarget = pathToFileURL(path.resolve('src/backup/restore-target.ts')).href;
    const script = `const { RestoreTarget } = await import(${JSON.stringify(restoreTarget)});
    const { libc } = await import(${JSON.stringify(restoreTarget.replace('backup/restore-target', 'base/libc'))});
    const { writeFileSync } = await import('node:fs');
    libc();
    // Only now: the source tree may lie where that user cannot read it.
    process.setgroups([]);
    process.setgid(12345);
    process.setuid(12345);
    const target = new RestoreTarget(${JSON.stringify(path.join(home, 'x'))}, {});
    await target.prepare('a test');
    const entry = (name, type, names) => ({ path: Buffer.from(name), type, mode: 0o500, uid: 7, gid: 8, mtimeNs: 1n, size: 0,
      extents: [], attributes: names.map((name) => ({ name: Buffer.from(name), value: Buffer.from('x') })) });
    await target.addOther(entry('', 'directory', []));
    const file = entry('file', 'file', ['trusted.a', 'user.a']);
    const absolute = await target.place(file);
    writeFileSync(absolute, '');
    target.setAttributes(absolute, file);
    await target.complete();
    console.log(JSON.stringify(target.warnings));`;
    const output = execFileSync(nodeBinary, ['--input-type=module', '-e', script], { encoding: 'utf8' });
    expect(JSON.parse(output)).toEqual([
      'the owners of 2 entries: only root can set them, so they belong to this user',
      expect.stringMatching(/^trusted\.a of file: EPERM/),
    ]);
    expect(lstatSync(path.join(home, 'x/file'))).toMatchObject({ uid: 12345, gid: 12345 });
    expect(lstatSync(path.join(home, 'x/file')).mode & 0o7777).toBe(0o500);
  },
);
