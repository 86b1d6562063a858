import { join } from 'node:path';
import { type Need, nearestExisting, portFinding, spaceFindings, writableFinding } from '../backup/doctor/host.ts';
import { isAbort } from '../base/errors.ts';
import { bad, doubtful, type Finding, fromError, good } from '../base/finding.ts';
import type { DatabaseTarget } from '../config/types.ts';
import { findPostgres } from '../postgres/binaries.ts';
import { checkReachable, resolveServerUser } from '../postgres/server-process-user.ts';
import type { DatabaseState, DirectoryState, RecoveryPort } from './ports.ts';

/** What places are looked at for: no run, so that nothing there can seem to be ours. */
const NO_RUN = 'dr-doctor';

export interface DatabaseRecoveryDoctorOptions {
  readonly name: string;
  readonly site: string;
  readonly target: DatabaseTarget;
  readonly binaries: readonly string[];
  readonly searchPath: readonly string[];
  /** Major version and size of what would come, as the server or the newest backup tells; undefined when neither does. */
  readonly expected: { readonly major: number; readonly bytes: number } | undefined;
  readonly recovery: Pick<RecoveryPort, 'databaseState'>;
  readonly signal: AbortSignal;
}

/** Whether a database could be brought up on this machine now: programs, user, place, space, port. Changes nothing. */
export async function examineDatabaseRecovery(options: DatabaseRecoveryDoctorOptions): Promise<Finding[]> {
  const { name, site, target, expected, recovery, signal } = options;
  const directory = target.dataDirectory;
  const state = await attempt(signal, async () => {
    const found = await recovery.databaseState({ name, runId: NO_RUN, directory, isolated: false, site }, signal);
    return [databaseStateFinding(directory, found)];
  });
  const findings = await Promise.all([
    attempt(signal, async () => [await programs(options)]),
    Promise.resolve(state),
    attempt(signal, async () => [await writableFinding(directory, 'the data directory')]),
    attempt(signal, async () => [await serverUser(target)]),
    attempt(signal, async () => [await portFinding(target.listen, target.port)]),
    attempt(signal, async () => (expected ? await spaceFindings([{ path: directory, bytes: expected.bytes }]) : [])),
  ]);
  return findings.flat();
}

/** Which server programs would be used; without a known version any is taken for a good sign only. */
async function programs(options: DatabaseRecoveryDoctorOptions): Promise<Finding> {
  const { expected, binaries, searchPath, name } = options;
  if (expected === undefined) {
    return doubtful(
      `nobody knows yet which PostgreSQL ${name} needs: its server does not answer and there is no backup`,
      'Mend the connection to the database or take a first backup, then run `dr doctor` again.',
    );
  }
  const { bin, version } = await findPostgres(expected.major, binaries, searchPath);
  return good(`PostgreSQL ${version} is in ${bin}`);
}

async function serverUser(target: DatabaseTarget): Promise<Finding> {
  const user = await resolveServerUser(target.user, target.dataDirectory);
  if (user === undefined) return good('the server will run as the user that runs dr');
  // Directories that do not exist yet will be made passable.
  await checkReachable(join(await nearestExisting(target.dataDirectory), 'data'), user);
  return good(`the server will run as ${user.name}, which can enter the place`);
}

function databaseStateFinding(directory: string, found: DatabaseState): Finding {
  switch (found.state) {
    case 'empty':
      return good(`${directory} is free`);
    case 'partial':
    case 'recovered':
      return doubtful(
        `${directory} holds what an unfinished run${found.runId ? ` (${found.runId})` : ''} left`,
        'The same `dr failover` goes on with it, and another one begins anew: see `dr runs`.',
      );
    case 'promoted':
      return bad(
        `${directory} holds the database that run ${found.runId} made the primary`,
        `Make sure that it is not the living database; then move ${directory} away.`,
      );
    case 'foreign':
      return bad(`${directory} ${found.detail}`, `Move it away or empty the directory, if nothing in it is needed.`);
  }
}

/** Whether a data set or configuration could be restored to its place on this machine now. */
export async function examineDirectoryRecovery(options: {
  readonly name: string;
  readonly path: string;
  readonly bytes: number | undefined;
  readonly recovery: Pick<RecoveryPort, 'directoryState'>;
  readonly signal: AbortSignal;
}): Promise<Finding[]> {
  const { name, path, bytes, recovery, signal } = options;
  const findings = await Promise.all([
    attempt(signal, async () => [
      directoryStateFinding(path, await recovery.directoryState({ name, runId: NO_RUN, path }, signal)),
    ]),
    attempt(signal, async () => [await writableFinding(path, 'the folder')]),
    attempt(signal, async () => (bytes === undefined ? [] : await spaceFindings([{ path, bytes }]))),
  ]);
  return findings.flat();
}

function directoryStateFinding(path: string, found: DirectoryState): Finding {
  switch (found.state) {
    case 'empty':
      return good(`${path} is free`);
    case 'partial':
      return doubtful(
        `${path} holds what an unfinished run${found.runId ? ` (${found.runId})` : ''} left`,
        'The same `dr failover` goes on with it, and another one begins anew: see `dr runs`.',
      );
    case 'complete':
      return bad(`${path} holds what run ${found.runId} restored`, `Move ${path} away, if it is not in use.`);
    case 'foreign':
      return bad(`${path} ${found.detail}`, `Move it away or empty the directory, if nothing in it is needed.`);
  }
}

/** Scratch restores of verification and drills: the largest resource must fit. */
export async function examineScratch(path: string, needs: readonly Need[]): Promise<Finding[]> {
  const largest = needs.reduce((most, { bytes }) => Math.max(most, bytes), 0);
  try {
    return [await writableFinding(path, 'the scratch folder'), ...(await spaceFindings([{ path, bytes: largest }]))];
  } catch (error) {
    if (isAbort(error)) throw error;
    return [fromError(error)];
  }
}

async function attempt(signal: AbortSignal, look: () => Promise<readonly Finding[]>): Promise<readonly Finding[]> {
  try {
    return await look();
  } catch (error) {
    if (signal.aborted || isAbort(error)) throw error;
    return [fromError(error)];
  }
}
