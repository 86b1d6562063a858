import { readFile, stat } from 'node:fs/promises';
import { codeOf, DrError, fileError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { registerSecret } from '../base/redact.ts';

/**
 * Reads the age identities of a file as `age-keygen` writes it: one a line, comments with `#`. They are registered as
 * secrets; nothing shows them.
 *
 * @throws DrError `not-found` or `local` (the file), `wrong-key` (no identity in it that dr can use)
 */
export async function readIdentities(file: string, log: Log): Promise<readonly string[]> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
    const { mode } = await stat(file);
    if (mode & 0o077)
      log.warn(
        { file, mode: (mode & 0o777).toString(8) },
        'the identity file can be read by others than its owner: chmod 600',
      );
  } catch (error) {
    if (codeOf(error) === 'EISDIR')
      throw new DrError('local', 'the identity file is a folder', { where: file, next: 'Name the file itself.' });
    throw fileError(error, file, 'read the identity file');
  }
  const lines = text.split(/\r?\n/).map((line) => line.trim());
  const identities = lines.filter((line) => /^AGE-SECRET-KEY-(PQ-)?1[0-9A-Z]+$/.test(line));
  for (const identity of identities) registerSecret(identity);
  if (identities.length > 0) return identities;
  if (lines[0]?.startsWith('age-encryption.org/') || lines[0]?.startsWith('-----BEGIN AGE ENCRYPTED FILE')) {
    throw new DrError('wrong-key', 'the identity file is protected by a passphrase, which dr cannot ask for', {
      where: file,
      next: 'Decrypt it into a file only you can read ("age -d") and name that one.',
    });
  }
  if (lines.some((line) => line.startsWith('age1'))) {
    throw new DrError('wrong-key', 'the identity file holds a public key, which opens nothing', {
      where: file,
      next: 'Name the file with the line that begins with AGE-SECRET-KEY-1.',
    });
  }
  throw new DrError('wrong-key', 'the identity file holds no age identity', {
    where: file,
    next: 'Name a file made by age-keygen: it has a line that begins with AGE-SECRET-KEY-1.',
  });
}
