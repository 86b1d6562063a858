import { execFileSync } from 'node:child_process';
import { cp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { listRunIds, readJournal } from '../../src/runbook/journal.ts';
import { readReport } from '../../src/runbook/run-report.ts';
import type { Ended } from '../harness/process.ts';
import { tempDir } from '../harness/temp.ts';
import { DisasterWorld, ORDERS, pause } from './disaster-world.ts';

// What goes wrong in the middle of a real failover: each trouble ends with a message that says what to do, in a state that the journal
// describes, and the same command goes on from there once the trouble is over.

const failover = ['failover', '--yes', '--reason', 'a test', '--json'];
/** Small disks need tmpfs, and that needs root on Linux. */
const canMount = process.platform === 'linux' && process.getuid?.() === 0;

let world: DisasterWorld;

beforeAll(async () => {
  const runbooks = await tempDir('runbooks');
  const shipped = join(import.meta.dirname, '../../runbooks');
  const asking = (await readFile(join(shipped, 'failover.yaml'), 'utf8'))
    .replace('name: failover', 'name: asking')
    .replace(
      'uses: database.promote\n',
      'uses: database.promote\n      approval: { prompt: "Promote?", by: [Ann], timeout: 5m }\n',
    );
  await writeFile(join(runbooks, 'asking.yaml'), asking);
  world = await DisasterWorld.create('troubles', { runbooks });
}, 60_000);

beforeEach(async () => await world.anew());
afterAll(async () => await world?.close());

describe('in the middle of a failover', { timeout: 120_000 }, () => {
  it('Route 53 refuses, then does not answer: the site is up, the name still old, and the command goes on', async () => {
    world.dns.faults.always('ChangeResourceRecordSets', { kind: 'deny' });
    const refused = await world.run(...failover);
    expectStop(refused, 10, /traffic/, /ChangeResourceRecordSets|permission|policy/);
    expect(world.dns.zone.published('orders.demo.test', 'A')?.[0]?.values).toEqual(['192.0.2.10']);
    expect(await world.served()).toMatchObject({ n: ORDERS, standby: false });
    world.dns.faults.clear();
    world.dns.faults.always('*', { kind: 'drop' });
    expectStop(await world.run(...failover), 9, /traffic/, /./);
    world.dns.faults.clear();
    await endsWell();
  });

  it('the disk of the recovery site is too small, then full: with room, the command goes on', async (context) => {
    context.skip(!canMount, 'needs root on Linux');
    const disk = join(world.root, 'west');
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=20m,mode=755', 'tmpfs', disk]);
    try {
      // Seen before anything is restored.
      expectStop(await world.run(...failover), 11, /20\.0 MiB are free at .*orders/, /Free space/);
      expect(await readdir(disk)).toEqual([]);
      // Room enough, as far as can be seen beforehand, and then none for another file.
      execFileSync('mount', ['-o', 'remount,size=1g,nr_inodes=200', disk]);
      expectStop(await world.run(...failover), 13, /ENOSPC|no space left/i, /[Ff]ree space/);
      execFileSync('mount', ['-o', 'remount,nr_inodes=100000', disk]);
      await endsWell();
    } finally {
      await world.stopRecovered();
      execFileSync('umount', ['--lazy', disk]);
    }
  });

  it('the vault of the site goes away while it restores, and comes back: the same run goes on', async () => {
    const process = world.start(...failover);
    await begun('database[orders]');
    await rename(world.vaultOf('west'), `${world.vaultOf('west')}.away`);
    const stopped = await process.ended;
    await rename(`${world.vaultOf('west')}.away`, world.vaultOf('west'));
    // Whatever it had managed by then, it did not claim success without a journal.
    expect(stopped.code, stopped.stdout + stopped.stderr).not.toBe(0);
    expect(answerOf(stopped).error?.message ?? stopped.stdout).toMatch(/west/);
    await endsWell();
  });

  it('Ctrl-C: exit 130, the journal says so, and the same command goes on', async () => {
    const process = world.start(...failover);
    await begun('database[orders]');
    const stopped = await process.stop('SIGINT');
    expect(stopped.code, stopped.stdout + stopped.stderr).toBe(130);
    const [id = ''] = await listRunIds(world.west);
    const { state } = await readJournal(world.west, id);
    expect(state.outcome).toBeUndefined();
    await endsWell();
  });

  it('a moment that cannot be reached is refused with the range that can, before anything is touched', async () => {
    const future = await world.run(...failover, '--at', '2999-01-01T00:00:00Z');
    expect(future.code, future.stdout).toBe(2);
    expect(await listRunIds(world.west)).toEqual([]);
    const { code: early, stdout: said } = await world.run(...failover, '--at', '2001-01-01T00:00:00Z');
    expect(early, said).toBe(6);
    expect(said).toMatch(/2001-01-01T00:00:00.*20[2-9]\d-\d\d-\d\dT/s);
    expect(world.dns.zone.published('orders.demo.test', 'A')?.[0]?.values).toEqual(['192.0.2.10']);
    // Another moment is another recovery: it is begun anew.
    const { code, stdout, stderr } = await world.run(...failover, '--new');
    expect(code, stdout + stderr).toBe(0);
    expect(await world.served()).toMatchObject({ n: ORDERS, standby: false });
  });

  it('WAL that the base backup needs is gone from one vault: the other one recovers', async () => {
    const wal = join(world.vaultOf('west'), 'wal');
    await cp(wal, join(world.root, 'wal-kept'), { recursive: true });
    await rm(wal, { recursive: true });
    try {
      await endsWell();
    } finally {
      await rm(wal, { recursive: true, force: true });
      await rename(join(world.root, 'wal-kept'), wal);
    }
  });

  it('WAL that the base backup needs is gone everywhere: it says so, promotes nothing, and leaves the name alone', async () => {
    for (const name of ['east', 'west'])
      await rename(join(world.vaultOf(name), 'wal'), join(world.root, `wal-${name}`));
    try {
      const stopped = await world.run(...failover);
      expect(stopped.code, stopped.stdout).not.toBe(0);
      expect(stopped.stdout + stopped.stderr).toMatch(/WAL/);
      expect(world.dns.zone.published('orders.demo.test', 'A')?.[0]?.values).toEqual(['192.0.2.10']);
    } finally {
      for (const name of ['east', 'west']) {
        await rm(join(world.vaultOf(name), 'wal'), { recursive: true, force: true });
        await rename(join(world.root, `wal-${name}`), join(world.vaultOf(name), 'wal'));
      }
    }
    const { code, stdout, stderr } = await world.run(...failover, '--new');
    expect(code, stdout + stderr).toBe(0);
  });

  it('an answer by somebody who may not is refused and changes nothing; the right one lets it go on', async () => {
    const process = world.start(...failover, '--runbook', 'asking');
    const [id, step] = await waiting();
    const wrong = await world.run('runs', id, '--approve', step, '--as', 'Ben', '--json');
    expect(wrong.code, wrong.stdout).toBe(11);
    expect(wrong.stdout).toContain(`Ben may not answer for step ${step} of run ${id}: Ann may`);
    const right = await world.run('runs', id, '--approve', step, '--as', 'Ann', '--comment', 'go');
    expect(right.code, right.stdout + right.stderr).toBe(0);
    const { code, stdout, stderr } = await process.ended;
    expect(code, stdout + stderr).toBe(0);
    expect((await readReport(world.west, id)).approvals).toEqual([
      expect.objectContaining({ step, name: expect.stringMatching(/^Ann /), comment: 'go' }),
    ]);
    const late = await world.run('runs', id, '--approve', step, '--as', 'Ann', '--json');
    expect(late.code, late.stdout).toBe(11);
    expect(late.stdout).toContain(`run ${id} has ended (succeeded): an answer changes nothing any more`);
  });
});

/** Waits until a step has begun, as the journal tells. */
async function begun(step: string): Promise<void> {
  for (;;) {
    const [id] = await listRunIds(world.west);
    const { state } = id === undefined ? { state: undefined } : await readJournal(world.west, id);
    if (state?.steps.some(({ plan, status }) => plan.id === step && status !== 'pending')) return;
    await pause(20);
  }
}

/** The run, and the step that waits for a person. */
async function waiting(): Promise<readonly [string, string]> {
  for (;;) {
    const [id] = await listRunIds(world.west);
    const { state } = id === undefined ? { state: undefined } : await readJournal(world.west, id);
    const step = state?.steps.find(({ approval }) => approval?.status === 'requested');
    if (id !== undefined && step !== undefined) return [id, step.plan.id];
    await pause(100);
  }
}

function answerOf({ stdout }: Ended): { error?: { message: string; next?: string }; result?: { outcome?: string } } {
  return JSON.parse(stdout || '{}');
}

function expectStop(ended: Ended, code: number, message: RegExp, next: RegExp): void {
  const what = ended.stdout + ended.stderr;
  expect(ended.code, what).toBe(code);
  const [, text = ''] = /("error": \{.*)/s.exec(ended.stdout) ?? [];
  expect(text, what).toMatch(message);
  expect(text, what).toMatch(next);
}

/** The same command, once more, without the trouble: one run, everything there. */
async function endsWell(): Promise<void> {
  const { code, stdout, stderr } = await world.run(...failover);
  expect(code, stdout + stderr).toBe(0);
  const ids = await listRunIds(world.west);
  expect(ids).toHaveLength(1);
  expect(await readReport(world.west, ids[0] ?? '')).toMatchObject({ outcome: 'succeeded', site: 'west' });
  expect(await world.served()).toEqual({ n: ORDERS, last: ORDERS, standby: false });
  expect(world.dns.zone.published('orders.demo.test', 'A')?.[0]?.values).toEqual(['198.51.100.10']);
}
