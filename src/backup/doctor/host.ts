import { access, constants, readFile, statfs } from 'node:fs/promises';
import { createServer } from 'node:net';
import { dirname, resolve } from 'node:path';
import { codeOf, fileError, messageOf } from '../../base/errors.ts';
import { bad, doubtful, type Finding, fromError, good } from '../../base/finding.ts';
import { formatBytes } from '../../base/units.ts';

/** zstd came to Node with 22.15. */
const OLDEST_NODE = [22, 15] as const;
const OPEN_FILES = 1024;
/** A restore needs its size and this much more, for WAL, spool and temporary files. */
const SPACE_FACTOR = 1.1;
const SPACE_EXTRA = 256 * 1024 * 1024;

/** This machine: Node, limits, the shell that recovery needs. `openFiles`: the soft limit, undefined = not limited. */
export async function examineHost(facts: {
  readonly nodeVersion: string;
  readonly openFiles: number | undefined;
}): Promise<Finding[]> {
  const [major = 0, minor = 0] = facts.nodeVersion.split('.').map(Number);
  const newEnough = major > OLDEST_NODE[0] || (major === OLDEST_NODE[0] && minor >= OLDEST_NODE[1]);
  const findings = [
    newEnough
      ? good(`Node ${facts.nodeVersion}, with zstd`)
      : bad(`Node ${facts.nodeVersion} has no zstd`, `Install Node ${OLDEST_NODE.join('.')} or newer (24 is tested).`),
  ];
  const limit = facts.openFiles;
  if (limit === undefined || limit >= OPEN_FILES) {
    findings.push(good(limit === undefined ? 'no limit of open files is known' : `${limit} files may be open at once`));
  } else {
    const next = `Raise the limit for dr: ulimit -n ${OPEN_FILES * 4}, or LimitNOFILE= in its systemd unit.`;
    findings.push(doubtful(`only ${limit} files may be open at once`, next));
  }
  const shell = await access('/bin/sh', constants.X_OK).then(
    () => true,
    () => false,
  );
  findings.push(
    shell
      ? good('/bin/sh is there, which PostgreSQL needs for recovery')
      : doubtful('there is no /bin/sh', 'Databases cannot be recovered here; backups do not need it.'),
  );
  return findings;
}

/** The soft limit of open files of this process, where the system shows it (Linux); undefined = not limited, or not known. */
export async function openFilesLimit(): Promise<number | undefined> {
  const limits = await readFile('/proc/self/limits', 'utf8').catch(() => '');
  const match = /^Max open files +(\d+)/m.exec(limits);
  return match === null ? undefined : Number(match[1]);
}

/** The nearest directory of a path that exists, itself included. */
export async function nearestExisting(path: string): Promise<string> {
  for (let at = resolve(path); ; at = dirname(at)) {
    try {
      await access(at, constants.F_OK);
      return at;
    } catch (error) {
      const missing = codeOf(error) === 'ENOENT' || codeOf(error) === 'ENOTDIR';
      if (!missing || at === dirname(at)) throw fileError(error, at, 'look at the place');
    }
  }
}

/** Whether this user may make or fill a place. Writes nothing. */
export async function writableFinding(path: string, what: string): Promise<Finding> {
  try {
    const existing = await nearestExisting(path);
    await access(existing, constants.W_OK | constants.X_OK);
    return good(`${what} ${path} can be written`);
  } catch (error) {
    return fromError(fileError(error, path, `write to ${what}`));
  }
}

/** Something that will need room, by path; paths on one file system are added up. */
export interface Need {
  readonly path: string;
  readonly bytes: number;
}

export async function spaceFindings(needs: readonly Need[]): Promise<Finding[]> {
  const volumes = new Map<string, { free: number; needed: number; path: string }>();
  for (const { path, bytes } of needs) {
    const { bsize, bavail, type, blocks, files } = await statfs(await nearestExisting(path));
    // statfs has no identity; these numbers together are one for all practical purposes.
    const id = [type, bsize, blocks, files].join('/');
    const volume = volumes.get(id) ?? { free: bsize * bavail, needed: SPACE_EXTRA, path };
    volume.needed += bytes * SPACE_FACTOR;
    volumes.set(id, volume);
  }
  return [...volumes.values()].map(({ free, needed, path }) => {
    const what = `${formatBytes(free)} are free at ${path}, ${formatBytes(needed)} are needed`;
    return free >= needed
      ? good(what)
      : bad(what, `Free space on the file system of ${path}, or choose another place.`);
  });
}

/** Whether a server could listen there. Listens for a moment itself. */
export async function portFinding(listen: string, port: number): Promise<Finding> {
  // A list or "*" is PostgreSQL's notation: the port has to be free on all addresses then.
  const host = /^[\d.:a-f]+$/i.test(listen) || listen === 'localhost' ? listen : undefined;
  const what = `port ${port} on ${host ?? 'all addresses'}`;
  const server = createServer();
  try {
    await new Promise<void>((done, reject) => {
      server.once('error', reject);
      server.listen({ port, ...(host === undefined ? {} : { host }) }, done);
    });
    return good(`${what} is free`);
  } catch (error) {
    if (codeOf(error) === 'EADDRINUSE') {
      return bad(
        `${what} is taken by another program`,
        `Stop what listens there, or change the port in the configuration.`,
      );
    }
    return bad(`${what} cannot be used: ${messageOf(error)}`, 'Correct "listen" in the configuration.');
  } finally {
    server.close();
  }
}
