import { appendFile, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { systemClock } from '../../../src/base/clock.ts';
import { lookAtServer, promoteServer } from '../../../src/steps/cluster/volume-server.ts';
import { startPostgres } from '../../harness/postgres.ts';

const signal = AbortSignal.timeout(100_000);

it.each([15, 16, 17, 18] as const)(
  'PostgreSQL %s, promoted, forgets what only its recovery needed, also asked twice',
  async (version) => {
    await using server = await startPostgres({ version });
    const file = join(server.dataDirectory, 'postgresql.auto.conf');
    await appendFile(
      file,
      "restore_command = 'false'\ndr.archive_end = '0/2000028'\ndr.covered_until = '2026-11-23T15:00:00.000Z'\n",
    );
    await server.restart();
    expect(await lookAtServer(server.url, signal)).toMatchObject({
      inRecovery: false,
      archiveEnd: 0x2000028n,
      coveredUntilMs: Date.UTC(2026, 10, 23, 15),
    });
    await promoteServer(server.url, systemClock, signal);
    expect(await readFile(file, 'utf8')).not.toMatch(/restore_command|dr\./);
    await server.restart();
    expect(await lookAtServer(server.url, signal)).toMatchObject({ archiveEnd: undefined, coveredUntilMs: undefined });
    await promoteServer(server.url, systemClock, signal);
  },
);
