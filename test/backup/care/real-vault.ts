import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { recordActiveSite } from '../../../src/backup/active-site.ts';
import { backupResource } from '../../../src/backup/backup-resource.ts';
import { careOf, writeCare } from '../../../src/backup/care/care-record.ts';
import { examineVault } from '../../../src/backup/care/check-vault.ts';
import type { BackupContext } from '../../../src/backup/context.ts';
import type { Manifest } from '../../../src/backup/manifest.ts';
import { keepOwnConfiguration } from '../../../src/backup/own-configuration.ts';
import { clearHolds, setHold } from '../../../src/backup/retention/holds.ts';
import { writeRetentionMark } from '../../../src/backup/retention/mark.ts';
import { writeWatchHeartbeat } from '../../../src/backup/status/watch.ts';
import { withPassingArchiver } from '../../../src/backup/wal/ensure.ts';
import { systemClock } from '../../../src/base/clock.ts';
import { silentLog } from '../../../src/base/log.ts';
import { renderRunHtml } from '../../../src/report/run-html.ts';
import { renderRunMarkdown } from '../../../src/report/run-markdown.ts';
import { answerApproval } from '../../../src/runbook/approval.ts';
import type { RunEvent } from '../../../src/runbook/events.ts';
import { Journal } from '../../../src/runbook/journal.ts';
import { buildReport, storeReport } from '../../../src/runbook/run-report.ts';
import { vaultDocuments } from '../../../src/vault/documents.ts';
import { layout } from '../../../src/vault/layout.ts';
import { acquireLease } from '../../../src/vault/lease.ts';
import type { MemoryStore } from '../../../src/vault/memory-store.ts';
import { openVaults } from '../../../src/vault/roster.ts';
import { own, startPostgres, type TestPostgres } from '../../harness/postgres.ts';
import { tempDir } from '../../harness/temp.ts';
import { backupWorld, memoryVault } from '../fixture.ts';
import { putVerification, TestTime } from './vault-fixture.ts';

/** Two vaults with everything in them that a vault can hold, made by what makes it in production. */
export async function realVaults() {
  const [east, west] = [memoryVault('east'), memoryVault('west')];
  const both: readonly MemoryStore[] = [east, west];
  const documents = await vaultDocuments();
  await openVaults(both, { log: silentLog, documents });
  const world = await backupWorld(both);
  const scratch = await tempDir('scratch');
  const context: BackupContext = { ...world.context, partBytes: 1024 * 1024, scratch };
  const database = await backUpDatabase(context);
  const directories = await backUpDirectories(context);
  const own_ = {
    text: 'version: 1\n',
    runbooks: [{ name: 'failover.yaml', text: 'stages: []\n' }],
    source: '/etc/dr.yaml',
  };
  await keepOwnConfiguration(context, own_);
  await keepOwnConfiguration(context, { ...own_, text: 'version: 1\nactive: east\n' });
  await record(both, [...database, ...directories]);
  await run(west, east);
  await world.pool.close();
  return { east, west, documents, keyRing: world.keyRing, manifests: [...database, ...directories] };
}

/** Base backups of two timelines, the second incremental where that is built; whole segments, pieces and a history. */
async function backUpDatabase(context: BackupContext): Promise<Manifest[]> {
  await using source = await startPostgres({ version: 17 });
  await source.sql('create table orders as select i, md5(i::text) as note from generate_series(1, 20000) i');
  const manifests: Manifest[] = [];
  const backUp = async () => {
    const orders = { name: 'orders', url: source.url };
    const taken = await withPassingArchiver(context, orders, async (ensureWal) => {
      const backup = await backupResource(context, { type: 'database', ...orders, ensureWal });
      await source.sql('insert into orders select i, $1 from generate_series(1, 1000) i', ['more']);
      await source.sql('select pg_switch_wal()');
      await source.sql('insert into orders values (0, $1)', ['last']);
      return backup;
    });
    manifests.push(taken.manifest);
  };
  await backUp();
  await backUp();
  await promoted(source);
  await backUp();
  return manifests;
}

/** The same server on the next timeline. */
async function promoted(server: TestPostgres): Promise<void> {
  await server.stop();
  const signal = path.join(server.dataDirectory, 'standby.signal');
  writeFileSync(signal, '');
  own(signal);
  await server.start();
  await server.promote();
}

async function backUpDirectories(context: BackupContext): Promise<Manifest[]> {
  const root = await tempDir('real');
  const manifests: Manifest[] = [];
  for (const [name, kind] of [
    ['uploads', 'data'],
    ['settings', 'configuration'],
  ] as const) {
    const folder = path.join(root, name);
    mkdirSync(path.join(folder, 'sub'), { recursive: true });
    for (let i = 0; i < 20; i++) writeFileSync(path.join(folder, 'sub', `${i}`), `content ${i}\n`.repeat(100 * i));
    const source = { type: 'directory' as const, name, kind, path: folder, exclude: [], allowEmpty: false };
    manifests.push((await backupResource(context, source)).manifest);
    writeFileSync(path.join(folder, 'sub', '3'), 'changed');
    manifests.push((await backupResource(context, source)).manifest);
  }
  return manifests;
}

async function record(both: readonly MemoryStore[], manifests: readonly Manifest[]): Promise<void> {
  const nowMs = Date.now();
  const [first] = manifests;
  const { hold } = await setHold(both, { reason: 'incident', by: 'alice', nowMs });
  await clearHolds(both, { id: hold.id, by: 'alice', nowMs });
  await setHold(both, { reason: 'another', by: 'alice', nowMs });
  await recordActiveSite(both, { site: 'east', since: new Date(nowMs).toISOString(), by: 'test' }, silentLog);
  if (first) await putVerification(both, first, new TestTime(nowMs));
  await writeRetentionMark(
    both,
    { done: { at: new Date(nowMs).toISOString(), site: 'east', freedBytes: 0 } },
    silentLog,
    new AbortController().signal,
  );
  for (const store of both) {
    await writeWatchHeartbeat(store, { resource: 'settings', backupId: 'x', unchangedAtMs: nowMs, site: 'east' });
    const clock = { now: () => nowMs, sleep: systemClock.sleep };
    const check = await examineVault({ store, others: [], policies: new Map(), clock });
    await writeCare(both, careOf({ check, before: undefined, site: 'east', nowMs }), silentLog);
    // As a killed holder leaves it.
    const lease = await acquireLease(store, 'backup-orders', { purpose: 'test' });
    const key = layout.leaseGeneration('backup-orders', lease.generation);
    const held = await store.read(key);
    await lease.release();
    await store.overwrite(key, held);
  }
}

/** A finished run: its journal in both vaults, its report where it ran. */
async function run(home: MemoryStore, other: MemoryStore): Promise<void> {
  const runId = '20261123T050102123Z-3f9a1c';
  const clock = { now: () => Date.now(), sleep: systemClock.sleep };
  const facts = { runId, by: 'test', executor: 'e1', clock, log: silentLog };
  const journal = Journal.begin({ ...facts, store: home, copies: [other] });
  const step = {
    id: 'a',
    stage: 'restore',
    group: 0,
    uses: 'x',
    title: 'x',
    needsApproval: false,
    undoable: false,
  } as const;
  const events: RunEvent[] = [
    {
      type: 'run-started',
      mode: 'failover',
      site: 'west',
      from: 'east',
      at: { kind: 'latest' },
      reason: 'a test',
      runbook: { name: 'x', path: 'x', text: 'x' },
      objectives: { rtoMs: 1, rpoMs: 1 },
      resourceObjectives: {},
      steps: [step],
    },
    { type: 'step-started', step: 'a', attempt: 1 },
    { type: 'step-finished', step: 'a', found: false, outputs: {}, evidence: [] },
    { type: 'run-finished', outcome: 'succeeded' },
  ];
  for (const event of events) await journal.append(event);
  await journal.settle();
  await answerApproval(home, {
    runId,
    step: 'a',
    answer: 'approve',
    name: 'Ada',
    account: 'ada@host',
    at: new Date().toISOString(),
  });
  const report = buildReport(runId, journal.entries, journal.state, journal.lastDigest);
  await storeReport(home, report, { markdown: renderRunMarkdown(report), html: renderRunHtml(report) });
}
