import { join } from 'node:path';
import { generateIdentity, identityToRecipient } from 'age-encryption';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { walCoverage } from '../../../src/backup/wal/coverage.ts';
import { silentLog } from '../../../src/base/log.ts';
import { parseLsn } from '../../../src/postgres/lsn.ts';
import { FileStore } from '../../../src/vault/file-store.ts';
import { KeyRing } from '../../../src/vault/keys.ts';
import type { ObjectStore } from '../../../src/vault/store.ts';
import { startPostgres, type TestPostgres } from '../../harness/postgres.ts';
import { startNode } from '../../harness/process.ts';
import { tempDir } from '../../harness/temp.ts';
import { compareWithServer, emptyDirectory, systemIdOf, walEnd } from './world.ts';

const ROUNDS = 10;
let server: TestPostgres;
let directories: string[];
let stores: ObjectStore[];
let identity: string;

beforeAll(async () => {
  server = await startPostgres({
    initdb: ['--wal-segsize=2'],
    settings: { wal_keep_size: '1GB', max_wal_size: '4GB' },
  });
  identity = await generateIdentity();
  const base = await tempDir('wal');
  directories = ['east', 'west'].map((name) => emptyDirectory(join(base, name)));
  stores = directories.map((root, i) => {
    const name = i === 0 ? 'east' : 'west';
    return new FileStore({ name, region: `region-${name}`, root, log: silentLog });
  });
});
afterAll(() => server.stop('immediate'));

async function acknowledged(): Promise<bigint | undefined> {
  const [row] = await server.sql<{ lsn: string | null }>(
    "select restart_lsn::text as lsn from pg_replication_slots where slot_name = 'dr'",
  );
  return parseLsn(row?.lsn ?? '');
}

test(`killed ${ROUNDS} times under load: no gap, nothing acknowledged is missing in any vault`, async () => {
  await server.sql('create table orders(id bigserial primary key, note text)');
  const recipient = await identityToRecipient(identity);
  const child = join(import.meta.dirname, 'child.ts');
  const writer = { stop: false };
  const load = (async () => {
    while (!writer.stop) {
      await server.sql('insert into orders(note) select md5(random()::text) from generate_series(1, 2000)');
    }
  })();
  load.catch(() => {});
  let reserved: bigint | undefined;
  let begin: bigint | undefined;
  let systemId = '';
  for (let round = 0; round < ROUNDS; round++) {
    await using archiver = startNode(child, [server.replicationUrl, recipient, ...directories]);
    await archiver.waitFor(/^streaming$/m);
    reserved ??= await acknowledged();
    systemId ||= await systemIdOf(server);
    // Killed at a random distance of work, not of time: after so much more WAL, or so much more of it acknowledged.
    const measure = round % 2 === 0 ? () => walEnd(server) : async () => (await acknowledged()) ?? 0n;
    const until = (await measure()) + BigInt(Math.floor(Math.random() * 2 * 1024 * 1024));
    while ((await measure()) < until) await new Promise((resolve) => setTimeout(resolve, 3));
    const { signal, stderr } = await archiver.kill9();
    expect(signal, stderr).toBe('SIGKILL');
    const promised = await acknowledged();
    for (const store of stores) {
      const { timelines } = await walCoverage(store, systemId);
      // Objects are stored side by side, so one may lie beyond a hole: never acknowledged, and filled by the next start.
      const [range] = timelines[0]?.ranges ?? [];
      if (!range) {
        // Killed before the first flush: then nothing was acknowledged either.
        expect(promised).toBe(reserved);
        continue;
      }
      begin ??= range.start;
      expect(range.start).toBe(begin);
      expect(range.end >= (promised ?? 0n), `acknowledged ${promised}, ${store.name} has ${range.end}`).toBe(true);
    }
  }
  writer.stop = true;
  await load;
  await using last = startNode(child, [server.replicationUrl, recipient, ...directories]);
  await last.waitFor(/^streaming$/m);
  const end = await walEnd(server);
  while (((await acknowledged()) ?? 0n) < end) await new Promise((resolve) => setTimeout(resolve, 10));
  for (const store of stores) {
    const compared = await compareWithServer(store, new KeyRing([identity]), server, begin ?? end, end, {
      segmentBytes: 2 * 1024 * 1024,
    });
    expect(compared).toBeGreaterThan(3);
    expect((await walCoverage(store, systemId)).timelines[0]?.ranges).toHaveLength(1);
  }
});
