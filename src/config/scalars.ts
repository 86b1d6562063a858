import { isIPv4, isIPv6 } from 'node:net';
import { isAbsolute, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { parseBytes, parseDuration } from '../base/units.ts';
import { cadenceForms, parseCadence } from './cadence.ts';

/** The kinds of values that the configuration is made of: each says in its own words what it wants. */

/** Why a text is not what it should be. */
class Wrong {
  readonly reason: string;
  constructor(reason: string) {
    this.reason = reason;
  }
}

const wrong = (reason: string) => new Wrong(reason);

/** Text that `read` turns into `Out`, or says what is wrong with it. */
function text<Out>(wanted: string, read: (written: string) => Out | Wrong) {
  return z.string({ error: `must be ${wanted}` }).transform((written, context): Out => {
    const value = read(written);
    if (!(value instanceof Wrong)) return value;
    context.addIssue({ code: 'custom', message: value.reason });
    return z.NEVER;
  });
}

/** A length of time; the value is milliseconds. */
export const duration = () =>
  text('a length of time with its unit, for example 5s, 15m, 6 hours, 30 days', (written) => {
    const ms = parseDuration(written);
    if (ms === undefined)
      return wrong(`"${written}" is not a length of time; write for example 5s, 15m, 6 hours, 30 days`);
    return ms > 0 ? ms : wrong('must be longer than nothing');
  });

/** When something is done again and again. */
export const cadence = () =>
  text(cadenceForms, (written) => {
    const parsed = parseCadence(written);
    return typeof parsed === 'string' ? wrong(parsed) : parsed;
  });

/** The IANA name of a time zone. */
export const timeZone = () =>
  text('a time zone, for example Europe/Berlin', (written) => {
    try {
      new Intl.DateTimeFormat('en', { timeZone: written });
      return written;
    } catch {
      return wrong(`"${written}" is not a time zone: write a name like Europe/Berlin, or UTC`);
    }
  });

/** A size; the value is bytes. */
export const size = (smallest: number, largest: number, range: string) =>
  text('a size with its unit, for example 16MiB', (written) => {
    const bytes = parseBytes(written);
    if (bytes === undefined) return wrong(`"${written}" is not a size; write for example 16MiB`);
    return bytes >= smallest && bytes <= largest ? bytes : wrong(`must be ${range}`);
  });

/** A whole number, also as text because that is what an expanded ${NAME} is. */
export function whole(smallest: number, largest: number) {
  const error = `must be a whole number from ${smallest} to ${largest}`;
  return z.union(
    [
      z.int({ error }).min(smallest, { error }).max(largest, { error }),
      z
        .string()
        .regex(/^\d{1,15}$/, { error })
        .transform(Number)
        .refine((value) => value >= smallest && value <= largest, { error }),
    ],
    { error },
  );
}

/** Yes or no, also as text because that is what an expanded ${NAME} is. */
export const flag = () =>
  z.union([z.boolean(), z.literal(['true', 'false']).transform((word) => word === 'true')], {
    error: 'must be true or false',
  });

/** A folder or file by its absolute path, without `..` and trailing slash. */
export const absolutePath = () =>
  text('an absolute path', (written) => {
    if (written.startsWith('~')) return wrong('"~" is not expanded: write the whole path from /');
    if (!isAbsolute(written)) return wrong(`"${written}" is not absolute: write the whole path from /`);
    if (written.includes('\0')) return wrong('a path cannot hold a null character');
    const path = normalize(written).replace(/(.)\/+$/, '$1');
    return path === '/' ? wrong('is the root of the file system: name the folder that is meant') : path;
  });

/** The name of a resource, vault or site: it becomes part of object keys and file names. */
export const name = () =>
  z.string().regex(/^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$/, {
    error: 'names have up to 63 letters, digits, "-" and "_", and begin with a letter or digit',
  });

export const someText = (wanted = 'text') =>
  z.string({ error: `must be ${wanted}` }).min(1, { error: `must be ${wanted}, not empty` });

/** `s3://bucket/prefix` or `file:///dir`, without a trailing slash. */
export const vaultUrl = () =>
  text('s3://bucket/prefix or file:///dir', (written) => {
    const url = URL.canParse(written) ? new URL(written) : undefined;
    if (url?.protocol === 'file:') {
      if (url.host !== '') return wrong('a file vault has three slashes: file:///absolute/dir');
      return fileURLToPath(url) === '/'
        ? wrong('is the root of the file system: name a folder')
        : written.replace(/\/+$/, '');
    }
    if (url?.protocol === 's3:') {
      if (url.username !== '' || url.password !== '') {
        return wrong(
          'credentials do not belong in the URL: use the AWS credential chain, or "credentials" of this vault',
        );
      }
      return /^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/.test(url.hostname)
        ? written.replace(/\/+$/, '')
        : wrong('the bucket needs 3 to 63 lower-case letters, digits, "." and "-": s3://bucket/prefix');
    }
    return wrong('is no vault URL: write s3://bucket/prefix or file:///dir');
  });

export const httpUrl = () =>
  text('an http:// or https:// URL', (written) => {
    const url = URL.canParse(written) ? new URL(written) : undefined;
    return url?.protocol === 'http:' || url?.protocol === 'https:'
      ? written
      : wrong('must be an http:// or https:// URL');
  });

/** A share such as `5%` or `0.05`; the value is 0 to 1. */
export const percentage = () =>
  text('a share, for example 5%', (written) => {
    const match = /^(\d+(?:\.\d+)?)\s*(%?)$/.exec(written.trim());
    const share = match === null ? Number.NaN : Number(match[1]) / (match[2] === '%' ? 100 : 1);
    return share >= 0 && share <= 1 ? share : wrong(`"${written}" is no share: write for example 5%`);
  });

/** A name server to ask: `host`, `host:port`, `[IPv6]:port` or an IPv6 address. */
export const serverAddress = () =>
  text('a name server: host or host:port', (written) => {
    if (isIPv6(written)) return written;
    const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]\s]+))(?::(\d{1,5}))?$/.exec(written);
    const port = Number(match?.[3] ?? 53);
    return match !== null && port > 0 && port <= 65_535
      ? written
      : wrong(`"${written}" is no name server: write host, host:port or [IPv6]:port`);
  });

/** The document that health checks read: `s3://bucket/key` or `file:///path`. */
export const switchUrl = () =>
  text('s3://bucket/key or file:///path', (written) => {
    const url = URL.canParse(written) ? new URL(written) : undefined;
    const isFile = url?.protocol === 'file:' && url.host === '' && !url.pathname.endsWith('/');
    const isObject =
      url?.protocol === 's3:' &&
      url.username === '' &&
      /^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/.test(url.hostname) &&
      /^\/[\w.=/-]*[\w.=-]$/.test(url.pathname);
    return isFile || isObject ? written : wrong('is no place for a document: write s3://bucket/key or file:///path');
  });

/** A TSIG secret. Never shown in a reason. */
export const tsigSecret = () =>
  text('the base64 secret of a TSIG key', (written) => {
    const bytes = /^[A-Za-z0-9+/]+={0,2}$/.test(written) ? Buffer.from(written, 'base64').length : 0;
    return bytes >= 16
      ? written
      : wrong('is no TSIG secret of 16 bytes or more in base64: make one with "tsig-keygen"');
  });

/** A PostgreSQL connection URL. Never shown in a reason: it may hold a password. */
export const databaseUrl = () =>
  text('a PostgreSQL URL: postgresql://user@host:5432/database', (written) => {
    const url = parseDatabaseUrl(written);
    if (url === undefined) {
      return wrong(
        'cannot be read as a PostgreSQL URL: write postgresql://user@host:5432/database and encode special characters (%40 for @)',
      );
    }
    return url.pathname.length > 1
      ? written
      : wrong('names no database: add it at the end, postgresql://host/database');
  });

/** The parts of a PostgreSQL URL, also of `postgresql://user@/db?host=/socket` which no WHATWG parser takes; undefined if none. */
export function parseDatabaseUrl(written: string): URL | undefined {
  if (!/^postgres(ql)?:\/\//.test(written)) return undefined;
  if (URL.canParse(written)) return new URL(written);
  const hosted = written.replace('@/', '@socket.invalid/');
  return URL.canParse(hosted) ? new URL(hosted) : undefined;
}

/** `host:port` to listen on. */
export const listenAddress = () =>
  text('an address to listen on: 127.0.0.1:8080', (written) => {
    const match = /^(?:\[([0-9a-fA-F:]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(written);
    const host = match?.[1] ?? match?.[2];
    const port = Number(match?.[3]);
    if (host === undefined || port > 65_535)
      return wrong(`"${written}" is no address: write host:port, for example 127.0.0.1:8080`);
    return { host, port };
  });

/** A fully qualified host name without trailing dot. */
export function isHostName(written: string): boolean {
  return written.length <= 253 && /^(?!-)[\w-]{1,63}(?:\.(?!-)[\w-]{1,63})*$/.test(written) && !isIPv4(written);
}

/** Why `value` cannot be the content of a record of this type; undefined when it can. */
export function wrongRecordValue(type: 'A' | 'AAAA' | 'CNAME', value: string): string | undefined {
  if (type === 'A') return isIPv4(value) ? undefined : 'an A record points to an IPv4 address';
  if (type === 'AAAA') return isIPv6(value) ? undefined : 'an AAAA record points to an IPv6 address';
  return isHostName(value.replace(/\.$/, '')) ? undefined : 'a CNAME record points to a host name';
}

/** Why this is no age recipient (public key); undefined when it is. The checksum of Bech32 (BIP 173) catches slips of the pen. */
export function wrongRecipient(recipient: string): string | undefined {
  const separator = recipient.lastIndexOf('1');
  const prefix = recipient.slice(0, separator);
  if (!['age', 'age1pq', 'age1tag', 'age1tagpq'].includes(prefix))
    return 'is no age recipient: it begins with age1 and is the public half of an identity';
  const alphabet = 'qpzry9x8gf2tvdw0s3jn54khce6mua7l';
  const values = [...recipient.slice(separator + 1)].map((character) => alphabet.indexOf(character));
  const expanded = [...prefix].map((character) => character.charCodeAt(0));
  const all = [...expanded.map((code) => code >> 5), 0, ...expanded.map((code) => code & 31), ...values];
  if (values.includes(-1) || values.length < 58 || bech32Sum(all) !== 1) {
    return 'is no age recipient: a character is missing or wrong; copy the public key again (age-keygen -y shows it)';
  }
  return undefined;
}

function bech32Sum(values: readonly number[]): number {
  const generators = [0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3];
  let sum = 1;
  for (const value of values) {
    const top = sum >>> 25;
    sum = ((sum & 0x1ffffff) << 5) ^ value;
    generators.forEach((generator, i) => {
      if ((top >>> i) & 1) sum ^= generator;
    });
  }
  return sum >>> 0;
}
