import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { DrError } from '../../src/base/errors.ts';
import { silentLog } from '../../src/base/log.ts';
import { segmentName } from '../../src/postgres/lsn.ts';
import { WalSpool } from '../../src/postgres/wal-spool.ts';
import { feederFailedCode, processBorn, spoolScript } from '../../src/postgres/wal-spool-script.ts';
import { tempDir } from '../harness/temp.ts';

const segmentBytes = 1024 * 1024;
const name = (index: number) => segmentName(1, BigInt(index * segmentBytes), segmentBytes);

let base: string;
let spool: WalSpool | undefined;
let fetched: string[];
let missing: Set<string>;
let fault: ((file: string) => Error | undefined) | undefined;

beforeEach(async () => {
  // A name that a shell, and PostgreSQL's own %-escapes, would take apart.
  base = join(await tempDir(), `it's 100%f "odd" $HOME`);
  mkdirSync(base);
  fetched = [];
  missing = new Set();
  fault = undefined;
});
afterEach(async () => {
  await spool?.close();
  spool = undefined;
});

async function startSpool(prefetch = 4): Promise<WalSpool> {
  spool = new WalSpool({
    directory: join(base, 'spool'),
    segmentBytes,
    prefetch,
    log: silentLog,
    fetch: async (file) => {
      fetched.push(file);
      const error = fault?.(file);
      if (error !== undefined) throw error;
      return missing.has(file) ? undefined : Buffer.from(`content of ${file}`);
    },
  });
  await spool.start();
  return spool;
}

interface Asked {
  readonly code: number | null;
  readonly stderr: string;
  readonly target: string;
}

/** Asks as PostgreSQL does: with system(), after replacing %f, %p and %%. */
function begin(file: string, command = spool?.command ?? ''): { child: ChildProcess; answer: Promise<Asked> } {
  const target = join(base, `RECOVERYXLOG.${file}`);
  const replaced: Record<string, string> = { '%f': file, '%p': 'RECOVERYXLOG', '%%': '%' };
  const text = command.replaceAll(/%[fp%]/g, (part) => replaced[part] ?? part);
  const child = spawn('/bin/sh', ['-c', text], { cwd: base, stdio: ['ignore', 'ignore', 'pipe'] });
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
    stderr += chunk;
  });
  const answer = once(child, 'close').then(([code]) => ({ code: code as number | null, stderr, target }));
  return { child, answer };
}

const ask = async (file: string) => await begin(file).answer;
const received = () => readFileSync(join(base, 'RECOVERYXLOG'));

test('segments arrive whole, short ones filled with zeros, and the next ones are fetched ahead', async () => {
  const { directory } = await startSpool(4);
  expect(await ask(name(5))).toMatchObject({ code: 0, stderr: '' });
  expect(received().length).toBe(segmentBytes);
  expect(received().toString('utf8', 0, 40).replaceAll('\0', '')).toBe(`content of ${name(5)}`);
  const ahead = [6, 7, 8, 9].map((index) => join(directory, 'have', name(index)));
  await expect.poll(() => ahead.every((path) => existsSync(path))).toBe(true);
  expect(fetched.sort()).toEqual([5, 6, 7, 8, 9].map(name));
  expect(await ask(name(6))).toMatchObject({ code: 0 });
  await expect.poll(() => fetched.filter((file) => file === name(6)).length).toBe(1);
  await expect.poll(() => spool?.lastDelivered).toBe(name(6));
});

test('what the archive does not have is answered so, every time, without asking the archive again', async () => {
  await startSpool();
  missing.add('00000002.history').add(name(3));
  for (let times = 0; times < 3; times++) {
    expect(await ask('00000002.history')).toMatchObject({ code: 1 });
    expect(await ask(name(3))).toMatchObject({ code: 1 });
  }
  expect(fetched.filter((file) => file === name(3))).toHaveLength(1);
  expect(spool?.idle).toEqual({ name: name(3), count: 3 });
});

test('the same segment asked for at once again means that the server has no more to read', async () => {
  await startSpool();
  missing.add(name(4));
  expect(await ask(name(3))).toMatchObject({ code: 0 });
  expect(await ask(name(3))).toMatchObject({ code: 1 });
  expect(spool?.idle).toEqual({ name: name(3), count: 1 });
  // A server that starts again gets it again.
  await spool?.serverStarts();
  expect(spool?.idle).toBeUndefined();
  expect(await ask(name(3))).toMatchObject({ code: 0 });
});

test('a failing fetch never looks like the end of the WAL, and its error is kept', async () => {
  await startSpool();
  const outage = new DrError('unreachable', 'vault west does not answer');
  fault = (file) => (file === name(4) ? outage : undefined);
  expect(await ask(name(3))).toMatchObject({ code: 0 });
  const failed = await ask(name(4));
  expect(failed).toMatchObject({
    code: feederFailedCode,
    stderr: expect.stringContaining('vault west does not answer'),
  });
  expect(spool?.failure).toBe(outage);
  // From here on nothing is answered with "no such file".
  expect(await ask('00000002.history')).toMatchObject({ code: feederFailedCode });
});

test('a failure while fetching ahead is tried again when the file is needed', async () => {
  await startSpool();
  let failures = 0;
  fault = (file) => (file === name(4) && failures++ === 0 ? new Error('a passing fault') : undefined);
  expect(await ask(name(3))).toMatchObject({ code: 0 });
  await expect.poll(() => failures).toBe(1);
  expect(await ask(name(4))).toMatchObject({ code: 0 });
  expect(spool?.failure).toBeUndefined();
});

test('a segment that is too long is refused', async () => {
  await startSpool();
  await spool?.close();
  spool = new WalSpool({
    directory: join(base, 'spool'),
    segmentBytes,
    log: silentLog,
    fetch: async () => Buffer.alloc(segmentBytes + 1),
  });
  await spool.start();
  expect(await ask(name(1))).toMatchObject({ code: feederFailedCode });
  expect(spool.failure).toMatchObject({ kind: 'corrupt' });
});

test('names that PostgreSQL does not use are not handed to the archive', async () => {
  await startSpool();
  expect(await ask('../../etc/passwd')).toMatchObject({ code: feederFailedCode });
  expect(fetched).toEqual([]);
});

test('a closed spool ends a waiting request with an error', async () => {
  await startSpool();
  let called = () => {};
  const waiting = new Promise<void>((resolve) => {
    called = resolve;
  });
  await spool?.close();
  spool = new WalSpool({
    directory: join(base, 'spool'),
    segmentBytes,
    log: silentLog,
    fetch: async (_, signal) => {
      called();
      return await new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason)));
    },
  });
  await spool.start();
  const { answer } = begin(name(1));
  await waiting;
  await spool.close();
  expect(await answer).toMatchObject({ code: feederFailedCode });
});

test('prefetched bytes stay below the limit of disk for large segments', async () => {
  const large = 128 * 1024 * 1024;
  const wanted: string[] = [];
  spool = new WalSpool({
    directory: join(base, 'spool'),
    segmentBytes: large,
    log: silentLog,
    following: (_, count) =>
      Array.from({ length: count }, (_unused, index) => segmentName(1, BigInt((index + 2) * large), large)),
    fetch: async (file) => {
      wanted.push(file);
      return Buffer.from('x');
    },
  });
  await spool.start();
  await ask(segmentName(1, BigInt(large), large));
  expect(statSync(join(base, 'RECOVERYXLOG')).size).toBe(large);
  await expect.poll(() => wanted.length).toBe(3);
});

/** A spool directory without a living feeder behind it. */
function abandoned(feeder: { pid: number; born: string }, proc?: string): { command: string; directory: string } {
  const directory = join(base, 'left');
  for (const part of ['have', 'none']) mkdirSync(join(directory, part), { recursive: true });
  for (const file of ['asked', 'alive']) writeFileSync(join(directory, file), '');
  const script = join(base, 'left.sh');
  writeFileSync(script, spoolScript(directory, feeder, proc));
  return { command: `/bin/sh '${script.replaceAll("'", "'\\''").replaceAll('%', '%%')}' '%f' '%p'`, directory };
}

test('a feeder that is gone, or whose number another process has, is noticed', async () => {
  const child = spawn('/bin/sh', ['-c', 'exit 0']);
  await once(child, 'close');
  const gone = abandoned({ pid: child.pid ?? 0, born: '1' });
  const answer = await begin(name(1), gone.command).answer;
  expect(answer).toMatchObject({
    code: feederFailedCode,
    stderr: expect.stringMatching(/process \d+, which feeds this recovery, has ended/),
  });
  const other = abandoned({ pid: process.pid, born: '1' });
  expect(await begin(name(1), other.command).answer).toMatchObject({ code: feederFailedCode });
});

test('where processes cannot be seen, a feeder without sign of life for a minute counts as dead', async () => {
  const { command, directory } = abandoned({ pid: process.pid, born: await processBorn(process.pid) }, '/nowhere');
  const { answer } = begin(name(1), command);
  await expect.poll(() => readFileSync(join(directory, 'asked'), 'utf8')).toBe(`${name(1)}\n`);
  const longAgo = new Date(Date.now() - 180_000);
  utimesSync(join(directory, 'alive'), longAgo, longAgo);
  expect(await answer).toMatchObject({ code: feederFailedCode });
});
