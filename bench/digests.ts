import { createHash } from 'node:crypto';
import { createReadStream, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';

/** SHA-256 of every file below `base/` of a data directory that a backup holds, by path. */
export async function databaseDigests(dataDirectory: string): Promise<Map<string, string>> {
  const directory = join(dataDirectory, 'base');
  const found = new Map<string, string>();
  for (const path of readdirSync(directory, { recursive: true, encoding: 'utf8' }).sort()) {
    // The server's caches and temporary files are in no backup.
    if (/(^|\/)(pg_internal\.init|pgsql_tmp.*)$/.test(path) || !/\/[^/]+$/.test(path)) continue;
    const hash = createHash('sha256');
    await pipeline(createReadStream(join(directory, path)), hash);
    found.set(path, hash.digest('hex'));
  }
  return found;
}
