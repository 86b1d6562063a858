import { DrError, isAbort } from '../../base/errors.ts';
import { clockFinding, doubtful, type Finding, fromError, good } from '../../base/finding.ts';
import type { Log } from '../../base/log.ts';
import { formatBytes } from '../../base/units.ts';
import { connectReplication } from '../../postgres/connection.ts';
import { doctorDatabase } from '../../postgres/doctor.ts';
import { inspectServer, type ServerFacts } from '../../postgres/inspect.ts';
import type { Manifest } from '../manifest.ts';

export interface DatabaseDoctorOptions {
  readonly name: string;
  readonly url: string;
  readonly walEnabled: boolean;
  readonly slot: string;
  /** The newest backup in the vaults, where there is one: the server should still be that system. */
  readonly newest: Promise<Manifest | undefined>;
  readonly now: () => number;
  readonly log: Log;
  readonly signal: AbortSignal;
}

export interface DatabaseExamination {
  readonly findings: readonly Finding[];
  /** Undefined when the server cannot be asked. */
  readonly facts: ServerFacts | undefined;
}

/** Asks a server for everything that backups and WAL need. Changes nothing there. Never throws except when aborted. */
export async function examineDatabase(options: DatabaseDoctorOptions): Promise<DatabaseExamination> {
  const { name, url, slot, walEnabled, now, log, signal } = options;
  let facts: ServerFacts;
  const beforeMs = now();
  try {
    facts = await inspectServer(url, { slot, log, signal, timeoutMs: 10_000 });
  } catch (error) {
    if (isAbort(error) || signal.aborted) throw error;
    return { findings: [fromError(error)], facts: undefined };
  }
  const afterMs = now();
  const findings: Finding[] = [good(`${facts.where} answers as ${facts.role.name}, ${formatBytes(facts.totalBytes)}`)];
  const judged = doctorDatabase(facts, slot, { walEnabled, applicationName: `dr_${name}` });
  for (const { ok, severity, what, next } of judged) {
    findings.push({ verdict: ok ? 'ok' : severity === 'error' ? 'fail' : 'warn', what, next });
  }
  findings.push(clockFinding('the server', { theirsMs: facts.clockMs, beforeMs, afterMs }));
  // Without the right it would only say again what has been said.
  if (facts.role.replication || facts.role.superuser) findings.push(await tryReplication(options));
  findings.push(...lineageFinding(facts, await options.newest));
  return { findings, facts };
}

/** Rules of pg_hba.conf, proxies and poolers show only when it is tried. */
async function tryReplication({ name, url, log, signal }: DatabaseDoctorOptions): Promise<Finding> {
  try {
    const connection = await connectReplication({ url, applicationName: `dr_${name}_doctor`, log, signal });
    try {
      await connection.identify();
    } finally {
      await connection.close();
    }
    return good('a replication connection can be opened');
  } catch (error) {
    if (isAbort(error) || signal.aborted) throw error;
    return fromError(
      error instanceof DrError
        ? new DrError(error.kind, `a replication connection cannot be opened: ${error.message}`, {
            ...(error.where === undefined ? {} : { where: error.where }),
            ...(error.next === undefined ? {} : { next: error.next }),
          })
        : error,
    );
  }
}

function lineageFinding(facts: ServerFacts, newest: Manifest | undefined): Finding[] {
  const { database } = newest ?? {};
  if (!newest || !database) return [];
  if (database.systemId === facts.systemId) {
    return [good(`it is the system that was backed up last (${newest.finishedAt})`)];
  }
  return [
    doubtful(
      `it is another PostgreSQL system (${facts.systemId}) than the one that was backed up last (${database.systemId})`,
      'If the url is right and the server was created anew, take a new base backup now with `dr backup`; the old recovery points stay.',
    ),
  ];
}
