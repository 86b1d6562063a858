import { readFile, stat } from 'node:fs/promises';
import { armor, Decrypter } from 'age-encryption';
import { codeOf, DrError, fileError, isAbort, messageOf } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { registerSecret } from '../base/redact.ts';

/** Where the passphrase of a protected identity file comes from; it is asked for only when the file is one. Never an argument. */
export interface PassphraseSource {
  /** File whose first line it is (--passphrase-file, $DR_PASSPHRASE_FILE). */
  readonly file: string | undefined;
  /** $DR_PASSPHRASE. */
  readonly value: string | undefined;
  /** Asks the person at the terminal without showing what is typed; undefined when nobody is there. */
  readonly ask: ((question: string) => Promise<string>) | undefined;
}

/** How often a person may try. */
const ATTEMPTS = 3;
const binaryStart = 'age-encryption.org/v1\n';
const armorStart = '-----BEGIN AGE ENCRYPTED FILE-----';

/**
 * Reads the age identities of a file as `age-keygen` writes it: one a line, comments with `#`; or of such a file that `age -p` has
 * protected with a passphrase. They are registered as secrets; nothing shows them.
 *
 * @throws DrError `not-found` or `local` (the file), `wrong-key` (no identity in it that dr can use, a wrong passphrase)
 */
export async function readIdentities(file: string, passphrase: PassphraseSource, log: Log): Promise<readonly string[]> {
  const bytes = await readPrivate(file, 'the identity file', log);
  const sealed = protectedPart(bytes, file);
  const text = sealed ? await open(sealed, file, passphrase, log) : bytes.toString('utf8');
  const lines = text.split(/\r?\n/).map((line) => line.trim());
  const identities = lines.filter((line) => /^AGE-SECRET-KEY-(PQ-)?1[0-9A-Z]+$/.test(line));
  for (const identity of identities) registerSecret(identity);
  if (identities.length > 0) return identities;
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

async function readPrivate(file: string, what: string, log: Log): Promise<Buffer> {
  try {
    const bytes = await readFile(file);
    const { mode } = await stat(file);
    // 440 is how Kubernetes mounts a Secret for a user that is not root: nothing can be changed there.
    if (mode & 0o077 && (mode & 0o777) !== 0o440) {
      const facts = { file, mode: (mode & 0o777).toString(8) };
      log.warn(facts, `${what} can be read by others than its owner: chmod 600`);
    }
    return bytes;
  } catch (error) {
    if (codeOf(error) === 'EISDIR')
      throw new DrError('local', `${what} is a folder`, { where: file, next: 'Name the file itself.' });
    throw fileError(error, file, `read ${what}`);
  }
}

/** The age file in the bytes of a protected identity file, whatever its form; undefined when they are no age file. */
function protectedPart(bytes: Buffer, file: string): Uint8Array | undefined {
  if (bytes.toString('latin1', 0, binaryStart.length) === binaryStart) return bytes;
  const text = bytes.toString('utf8').trim();
  if (!text.startsWith(armorStart)) return undefined;
  try {
    return armor.decode(text);
  } catch (error) {
    throw new DrError('wrong-key', `the protected identity file cannot be read: ${messageOf(error)}`, {
      where: file,
      next: 'Copy the whole file again, from BEGIN to END.',
    });
  }
}

async function open(sealed: Uint8Array, file: string, source: PassphraseSource, log: Log): Promise<string> {
  const header = Buffer.from(sealed).toString('latin1', 0, 4096);
  if (!/^-> scrypt /m.test(header)) {
    throw new DrError('wrong-key', 'the identity file is encrypted for other identities, not with a passphrase', {
      where: file,
      next: 'Decrypt it into a file only you can read ("age -d -i …") and name that one.',
    });
  }
  const given = await givenPassphrase(source, log);
  if (given !== undefined) {
    const text = await decrypt(sealed, given, file);
    if (text !== undefined) return text;
  }
  for (let attempt = 1; given === undefined && source.ask && attempt <= ATTEMPTS; attempt++) {
    const again = attempt === 1 ? '' : 'That is not it. ';
    const typed = await asked(source.ask, `${again}Passphrase of ${file}: `, file);
    const text = await decrypt(sealed, typed, file);
    if (text !== undefined) return text;
  }
  if (given === undefined && !source.ask) {
    throw new DrError('wrong-key', 'the identity file is protected by a passphrase, and nobody is there to type it', {
      where: file,
      next: 'Give it with --passphrase-file FILE, $DR_PASSPHRASE_FILE or $DR_PASSPHRASE, or run dr on a terminal.',
    });
  }
  throw new DrError('wrong-key', 'the passphrase does not open the identity file', {
    where: file,
    next: 'Give the passphrase that this file was made with; age -d tries it too.',
  });
}

async function givenPassphrase({ file, value }: PassphraseSource, log: Log): Promise<string | undefined> {
  if (file === undefined) {
    if (value !== undefined) registerSecret(value);
    return value;
  }
  const [line = ''] = (await readPrivate(file, 'the passphrase file', log)).toString('utf8').split(/\r?\n/);
  if (line === '') {
    throw new DrError('wrong-key', 'the first line of the passphrase file is empty', {
      where: file,
      next: 'Write the passphrase into its first line.',
    });
  }
  registerSecret(line);
  return line;
}

async function asked(ask: NonNullable<PassphraseSource['ask']>, question: string, file: string): Promise<string> {
  try {
    const typed = await ask(question);
    registerSecret(typed);
    return typed;
  } catch (error) {
    if (isAbort(error)) throw error;
    throw new DrError('interrupted', 'no passphrase was typed', { where: file, cause: error });
  }
}

/** Undefined for another passphrase. */
async function decrypt(sealed: Uint8Array, passphrase: string, file: string): Promise<string | undefined> {
  const decrypter = new Decrypter();
  decrypter.addPassphrase(passphrase);
  try {
    return await decrypter.decrypt(sealed, 'text');
  } catch (error) {
    if (/no identity matched/i.test(messageOf(error))) return undefined;
    throw new DrError('wrong-key', `the protected identity file cannot be read: ${messageOf(error)}`, {
      where: file,
      next: 'Take another copy of it: this one is damaged, or was made by another program.',
      cause: error,
    });
  }
}
