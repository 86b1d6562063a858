import { access, constants, lstat, opendir } from 'node:fs/promises';
import path from 'node:path';
import { codeOf, fileError, messageOf } from '../../base/errors.ts';
import { bad, doubtful, type Finding, fromError, good } from '../../base/finding.ts';
import { globMatcher } from '../../base/glob.ts';
import { formatBytes } from '../../base/units.ts';

/** Looking at millions of files is the backup's work: a doctor says how far it looked. */
const LOOK_MS = 8000;
const LOOK_ENTRIES = 100_000;
const SHOWN = 3;

export interface DirectoryDoctorOptions {
  readonly path: string;
  /** Globs on the path relative to `path`. */
  readonly exclude: readonly string[];
  readonly allowEmpty: boolean;
  readonly now: () => number;
  readonly signal: AbortSignal;
}

interface Seen {
  entries: number;
  bytes: number;
  readonly excludes: (path: string) => string | undefined;
  excluded: Map<string, number>;
  unreadable: string[];
  readonly untilMs: number;
  complete: boolean;
}

/** Looks whether a directory can be backed up by this user, how large it is, and what the exclusions leave out. Changes nothing. */
export async function examineDirectory(options: DirectoryDoctorOptions): Promise<Finding[]> {
  const root = options.path;
  try {
    if (!(await lstat(root)).isDirectory()) {
      return [bad(`${root} is not a directory`, 'Name the directory itself in the configuration.')];
    }
    await access(root, constants.R_OK | constants.X_OK);
  } catch (error) {
    return [fromError(fileError(error, root, 'read the directory to back up'))];
  }
  const seen: Seen = {
    entries: 0,
    bytes: 0,
    excludes: globMatcher(options.exclude),
    excluded: new Map(options.exclude.map((pattern) => [pattern, 0])),
    unreadable: [],
    untilMs: options.now() + LOOK_MS,
    complete: true,
  };
  await look(root, '', options, seen);
  return findingsOf(options, seen);
}

async function look(root: string, relative: string, options: DirectoryDoctorOptions, seen: Seen): Promise<void> {
  let directory: Awaited<ReturnType<typeof opendir>>;
  try {
    directory = await opendir(path.join(root, relative));
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') seen.unreadable.push(`${relative}/`);
    return;
  }
  for await (const entry of directory) {
    options.signal.throwIfAborted();
    if (seen.entries >= LOOK_ENTRIES || options.now() > seen.untilMs) {
      seen.complete = false;
      return;
    }
    const below = relative === '' ? entry.name : `${relative}/${entry.name}`;
    const pattern = seen.excludes(below);
    if (pattern !== undefined) {
      seen.excluded.set(pattern, (seen.excluded.get(pattern) ?? 0) + 1);
      continue;
    }
    seen.entries++;
    if (entry.isDirectory()) await look(root, below, options, seen);
    else if (entry.isFile()) await weigh(path.join(root, below), below, seen);
  }
}

async function weigh(absolute: string, relative: string, seen: Seen): Promise<void> {
  try {
    seen.bytes += (await lstat(absolute)).size;
    await access(absolute, constants.R_OK);
  } catch (error) {
    // What vanishes meanwhile is no fault of anybody.
    if (codeOf(error) !== 'ENOENT') seen.unreadable.push(`${relative}: ${messageOf(error)}`);
  }
}

function findingsOf({ path: root, allowEmpty }: DirectoryDoctorOptions, seen: Seen): Finding[] {
  const findings: Finding[] = [];
  const size = `${seen.complete ? '' : 'more than '}${seen.entries} ${seen.entries === 1 ? 'entry' : 'entries'}, ${formatBytes(seen.bytes)}`;
  if (seen.entries === 0 && !allowEmpty) {
    findings.push(
      bad(
        `${root} is empty: a backup that captures nothing counts as failed`,
        'Correct the path, mount what should be there, or allow it with allowEmpty: true.',
      ),
    );
  } else findings.push(good(`${root} can be read: ${size}`));
  const [first] = seen.unreadable;
  if (first !== undefined) {
    const shown = seen.unreadable.slice(0, SHOWN).join(', ');
    const more = seen.unreadable.length > SHOWN ? `, and ${seen.unreadable.length - SHOWN} more` : '';
    findings.push(
      bad(
        `${seen.unreadable.length} of them cannot be read by this user: ${shown}${more}`,
        'Give the user that runs dr read access (setfacl -R -m u:USER:rX), run dr as another user, or exclude them.',
      ),
    );
  }
  for (const [pattern, count] of seen.excluded) {
    if (count > 0) findings.push(good(`the exclusion "${pattern}" leaves out ${count} of what was looked at`));
    else if (seen.complete) {
      findings.push(
        doubtful(
          `the exclusion "${pattern}" matches nothing`,
          'Patterns stand for the path below the directory: write "**/*.tmp" for any depth.',
        ),
      );
    }
  }
  return findings;
}
