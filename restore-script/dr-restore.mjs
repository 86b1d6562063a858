#!/usr/bin/env node
// dr-restore.mjs, revision 2: restores one backup from a vault of dr (formats 1 and 2, described in FORMAT.md beside it) without dr.
// It needs Node 24 or newer and nothing else: no package, no network, no configuration.
const usage = `Usage:
  node dr-restore.mjs VAULT list
  node dr-restore.mjs VAULT restore RESOURCE TARGET [--backup ID] [--identity FILE | --data-keys DIR | --data-key FILE]

  VAULT            directory of the vault; from a bucket: aws s3 sync s3://BUCKET/PREFIX VAULT
  RESOURCE         a name that "list" shows; its newest backup is taken, or the one of --backup
  TARGET           directory that is new or empty
  --identity FILE  age identity (AGE-SECRET-KEY-1…) of an encrypted vault, as age-keygen writes it
  --data-keys DIR  instead of that: data keys that another program has opened, one file a key, named by its id; the 32 bytes or their
                   base64. With age, of the highest generation (000001.json, 000002.json, …):
                   jq -r .wrapped VAULT/keys/ID/000001.json | base64 -d | age -d -i IDENTITY > DIR/ID
                   A key that AWS KMS has wrapped (restore without --data-keys shows the command with its values):
                   jq -r .kms.wrapped VAULT/keys/ID/000001.json | base64 -d > wrapped
                   aws kms decrypt --region REGION --key-id ARN --encryption-context dr-data-key=ID \\
                     --ciphertext-blob fileb://wrapped --query Plaintext --output text > DIR/ID
  --data-key FILE  the same for a backup that has a single data key

Every byte is checked against its digest; a restore that could not be finished keeps the file .dr-restore-incomplete. Of a database it
restores the base backup, and the archived WAL into pg_wal: start PostgreSQL of the same major version on it, and it replays it all.`;

import {
  createDecipheriv,
  createHash,
  createHmac,
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  hkdfSync,
} from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import zlib from 'node:zlib';

/** What a person can act on; anything else is a defect of this script. */
class Problem extends Error {
  constructor(message, where, next) {
    super(message);
    Object.assign(this, { where, next });
  }
}
const damaged = (message, where) =>
  new Problem(
    message,
    where,
    'This object is damaged: restore from a copy of another vault, or another backup (--backup ID).',
  );
const sha256 = (...pieces) => pieces.reduce((hash, piece) => hash.update(piece), createHash('sha256')).digest();
const hex = (value) => value.toString(16).toUpperCase().padStart(8, '0');
const int64 = (value) => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(value));
  return bytes;
};

// ---- the vault: a directory whose paths are the names of the objects -----------------------------------------------------------

let vault = '';
const place = (key) => path.join(vault, key);

function readObject(key, what) {
  try {
    return fs.readFileSync(place(key));
  } catch (error) {
    if (error.code !== 'ENOENT') throw error;
    throw damaged(`${what} is missing`, place(key));
  }
}

function names(folder) {
  return fs.existsSync(place(folder)) ? fs.readdirSync(place(folder)).sort() : [];
}

/** JSON whose last field is the SHA-256 of the compact JSON of the others (FORMAT.md, "Record"). */
function parseRecord(bytes, what, where) {
  let value;
  try {
    value = JSON.parse(bytes.toString('utf8'));
  } catch (error) {
    throw damaged(`${what} is damaged: ${error.message}`, where);
  }
  const { sha256: digest, ...rest } = value;
  if (sha256(JSON.stringify(rest)).toString('hex') !== digest)
    throw damaged(`${what} does not match its SHA-256`, where);
  if (!(rest.format <= 2))
    throw new Problem(`${what} has format ${rest.format}`, where, 'Use the dr-restore.mjs of a newer dr.');
  return rest;
}

const readManifest = (resource, id) => {
  const key = `manifests/${resource}/${id}.json`;
  return parseRecord(readObject(key, `the manifest of backup ${id}`), 'the manifest', place(key));
};

// ---- data keys: age files for X25519 recipients (https://age-encryption.org/v1), with node:crypto alone ------------------------

/** The 32 bytes of an identity (bech32, BIP 173). */
function decodeIdentity(text) {
  const values = [...text.slice(text.lastIndexOf('1') + 1).toLowerCase()].map((c) =>
    'qpzry9x8gf2tvdw0s3jn54khce6mua7l'.indexOf(c),
  );
  const prefix = Buffer.from('age-secret-key-');
  let check = 1;
  for (const value of [...prefix.map((c) => c >> 5), 0, ...prefix.map((c) => c & 31), ...values]) {
    const top = check >>> 25;
    check = ((check & 0x1ffffff) << 5) ^ value;
    [0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3].forEach((generator, bit) => {
      if ((top >> bit) & 1) check ^= generator;
    });
  }
  let [bits, count] = [0, 0];
  const bytes = [];
  for (const value of values.slice(0, -6)) {
    [bits, count] = [((bits << 5) | value) & 0xfff, count + 5];
    if (count < 8) continue;
    count -= 8;
    bytes.push((bits >> count) & 255);
  }
  return check === 1 && bytes.length === 32 && !values.includes(-1) ? Buffer.from(bytes) : undefined;
}

function readIdentities(file) {
  const lines = fs
    .readFileSync(file, 'utf8')
    .split(/\r?\n/)
    .map((line) => line.trim());
  const found = lines.filter((line) => /^AGE-SECRET-KEY-1/i.test(line)).map(decodeIdentity);
  if (found.length > 0 && !found.includes(undefined)) return found;
  const next =
    'Name a file with AGE-SECRET-KEY-1… lines. One under a passphrase: age -d FILE > PLAIN first. Another kind (PQ, plugin): see --data-keys.';
  throw new Problem(
    found.length > 0 ? 'the identity has a typing error' : 'the file holds no X25519 age identity',
    file,
    next,
  );
}

const rawKey = (make, prefix, type, bytes) =>
  make({ key: Buffer.concat([Buffer.from(prefix, 'hex'), bytes]), format: 'der', type });
const hkdf = (secret, salt, info) => Buffer.from(hkdfSync('sha256', secret, salt, info, 32));

/** ChaCha20-Poly1305; undefined if the key is another. */
function openBox(key, nonce, box) {
  const cipher = createDecipheriv('chacha20-poly1305', key, nonce, { authTagLength: 16 });
  cipher.setAuthTag(box.subarray(-16));
  try {
    return Buffer.concat([cipher.update(box.subarray(0, -16)), cipher.final()]);
  } catch {
    return undefined;
  }
}

/** The content of a small age file (one chunk); undefined when none of the identities is a recipient. */
function openAge(file, identities, where) {
  const end = file.indexOf('\n--- ') + 4;
  const macEnd = file.indexOf('\n', end);
  const lines = file.toString('latin1', 0, end).split('\n');
  if (lines[0] !== 'age-encryption.org/v1' || end < 4 || macEnd < 0)
    throw damaged('the wrapped key is not an age file', where);
  for (const [i, line] of lines.entries()) {
    const [arrow, kind, share] = line.split(' ');
    if (arrow !== '->' || kind !== 'X25519') continue;
    const ephemeral = Buffer.from(share, 'base64');
    const publicKey = rawKey(createPublicKey, '302a300506032b656e032100', 'spki', ephemeral);
    for (const identity of identities) {
      const privateKey = rawKey(createPrivateKey, '302e020100300506032b656e04220420', 'pkcs8', identity);
      const recipient = createPublicKey(privateKey).export({ format: 'der', type: 'spki' }).subarray(-32);
      const shared = diffieHellman({ privateKey, publicKey });
      const wrapKey = hkdf(shared, Buffer.concat([ephemeral, recipient]), 'age-encryption.org/v1/X25519');
      const fileKey = openBox(wrapKey, Buffer.alloc(12), Buffer.from(lines[i + 1], 'base64'));
      if (!fileKey) continue;
      const mac = createHmac('sha256', hkdf(fileKey, '', 'header'))
        .update(file.subarray(0, end))
        .digest();
      if (!mac.equals(Buffer.from(file.toString('latin1', end + 1, macEnd), 'base64')))
        throw damaged('the age header was altered', where);
      const nonce = file.subarray(macEnd + 1, macEnd + 17);
      const lastChunk = Buffer.from([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
      const content = openBox(hkdf(fileKey, nonce, 'payload'), lastChunk, file.subarray(macEnd + 17));
      if (!content) throw damaged('the wrapped key was altered', where);
      return content;
    }
  }
  return undefined;
}

const dataKeys = new Map();
let openedElsewhere = false;

function dataKey(id, options) {
  if (id === undefined) return undefined;
  const known = dataKeys.get(id);
  if (known) return known;
  const given = options.dataKey ?? (options.dataKeys && path.join(options.dataKeys, id));
  const secret = given === undefined ? unwrapDataKey(id, options) : readDataKey(given);
  if (options.dataKey !== undefined && dataKeys.size > 0)
    throw new Problem('this backup has several data keys', id, 'Put them into a directory: --data-keys DIR.');
  dataKeys.set(id, secret);
  return secret;
}

/** The 32 bytes, or their base64, which is what `aws kms decrypt --output text` writes. */
function readDataKey(file) {
  const bytes = fs.readFileSync(file);
  const secret = bytes.length === 32 ? bytes : Buffer.from(bytes.toString('latin1').trim(), 'base64');
  if (secret.length === 32) return secret;
  throw new Problem(`the data key has ${bytes.length} bytes instead of 32`, file, 'See --data-keys in the usage.');
}

/** The highest generation that can be read and opened counts. */
function unwrapDataKey(id, options) {
  let problem = damaged('a data key is missing', place(`keys/${id}/`));
  let first = true;
  for (const name of names(`keys/${id}`).reverse()) {
    const where = place(`keys/${id}/${name}`);
    try {
      return unwrapGeneration(parseRecord(fs.readFileSync(where), 'the wrapped data key', where), options, where);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      if (first) problem = error;
      first = false;
    }
  }
  throw problem;
}

function unwrapGeneration({ id, recipients, wrapped, kms }, options, where) {
  const byKms = kms && kmsAdvice(id, kms, where);
  if (options.identity === undefined || wrapped === undefined) {
    const advice = wrapped && 'Give the age identity with --identity FILE.';
    throw new Problem('this backup is encrypted', where, [advice, byKms].filter(Boolean).join('\n         Or: '));
  }
  const secret = openAge(Buffer.from(wrapped, 'base64'), readIdentities(options.identity), where);
  if (secret) return secret;
  const advice = `Use the identity of one of these recipients: ${recipients.join(', ')}`;
  throw new Problem(
    'the identity does not open this backup',
    where,
    [advice, byKms].filter(Boolean).join('\n         Or: '),
  );
}

/** How AWS KMS opens it; needs credentials with kms:Decrypt. */
const kmsAdvice = (id, { key, regions, wrapped }, where) => `open it with AWS KMS (in ${regions.join(' or ')}):
         jq -r .kms.wrapped '${where}' | base64 -d > wrapped   # ${Buffer.from(wrapped, 'base64').length} bytes
         aws kms decrypt --region ${regions[0]} --key-id ${key} --encryption-context dr-data-key=${id} \\
           --ciphertext-blob fileb://wrapped --query Plaintext --output text > DIR/${id}
         and restore with --data-keys DIR`;

// ---- frames, parts and the index ------------------------------------------------------------------------------------------------

/** Raw content of one frame; `context` says what it must belong to, `counter` which one below its key it must be. */
function openFrame(frame, counter, context, secret, where) {
  if (frame.length < 40 || frame.toString('latin1', 0, 4) !== 'DRF1') throw damaged('this is not a frame', where);
  const [header, payload, tag] = [frame.subarray(0, 24), frame.subarray(24, -16), frame.subarray(-16)];
  const fits = Number(header.readBigUInt64BE(8)) === counter && header.readUInt32BE(20) === payload.length;
  if (!fits || (header[5] === 1) !== (secret !== undefined)) throw damaged('a frame stands in the wrong place', where);
  let content = payload;
  if (secret) {
    const cipher = createDecipheriv('aes-256-gcm', secret, Buffer.concat([Buffer.alloc(4), int64(counter)]));
    cipher.setAAD(Buffer.concat([Buffer.from(context), header])).setAuthTag(tag);
    try {
      content = Buffer.concat([cipher.update(payload), cipher.final()]);
    } catch {
      const given = openedElsewhere ? ', or its data key is not the one that was given' : '';
      throw damaged(`a frame fails its authentication${given}`, where);
    }
  } else if (!sha256(context, header, payload).subarray(0, 16).equals(tag))
    throw damaged('a frame fails its checksum', where);
  const length = header.readUInt32BE(16);
  const raw = header[4] === 1 ? zlib.zstdDecompressSync(content, { maxOutputLength: Math.max(1, length) }) : content;
  if (raw.length !== length) throw damaged('a frame has another length than it says', where);
  return raw;
}

/** Frames one after the other, each with its raw content. */
function* framesOf(bytes, context, secret, where, firstCounter) {
  for (let at = 0, n = 0; at < bytes.length; n++) {
    const length = at + 24 <= bytes.length ? 40 + bytes.readUInt32BE(at + 20) : 0;
    if (length === 0 || at + length > bytes.length) throw damaged('a frame is cut off', where);
    const counter = firstCounter === undefined ? Number(bytes.readBigUInt64BE(at + 8)) : firstCounter + n;
    yield openFrame(bytes.subarray(at, at + length), counter, context, secret, where);
    at += length;
  }
}

const decodeName = (text) => (text.startsWith('\0') ? Buffer.from(text.slice(1), 'base64') : Buffer.from(text));

/** A path of the index as bytes; one that would leave the target is refused. */
function safePath(text, where) {
  const name = decodeName(text);
  const unsafe =
    name.length > 0 &&
    name
      .toString('latin1')
      .split('/')
      .some((part) => ['', '.', '..'].includes(part));
  if (unsafe || name.includes(0)) throw damaged('the index names a path outside of the target', where);
  return name;
}

/** All entries of a backup, after size, digest, number and sum have been checked. */
function* readIndex(manifest, options) {
  const { key, size, sha256: digest, context, keyId } = manifest.index;
  const where = place(key);
  const sealed = readObject(key, `the index of backup ${manifest.id}`);
  if (sealed.length !== size || sha256(sealed).toString('hex') !== digest)
    throw damaged('the index does not match its SHA-256', where);
  let [entries, bytes] = [0, 0];
  for (const raw of framesOf(sealed, context, dataKey(keyId, options), where)) {
    for (const line of raw.toString('utf8').split('\n')) {
      if (line === '') continue;
      const entry = JSON.parse(line);
      entries++;
      bytes += entry.s ?? 0;
      yield { ...entry, path: safePath(entry.p, where), x: entry.x ?? [] };
    }
  }
  if (entries !== manifest.entries || bytes !== manifest.logicalBytes)
    throw damaged('the index is not complete', where);
}

/** Digest of a run: its SHA-256, or where it has blocks the SHA-256 over those of its blocks. */
function runDigest(run, blockBytes) {
  if (blockBytes === undefined) return sha256(run).toString('base64');
  const blocks = [];
  for (let at = 0; at < run.length; at += blockBytes) blocks.push(sha256(run.subarray(at, at + blockBytes)));
  return sha256(...blocks).toString('base64');
}

/** The bytes that an extent names, checked; the last runs are kept, because many slices may be of one. */
function contentReader(manifest, options) {
  const readFrame = frameReader(manifest, options);
  const checked = new Map();
  return (extent, blockBytes, name) => {
    const [, length, part, offset, , , rawOffset, digest, skip = 0, runLength = length] = extent;
    const run = readFrame(extent).subarray(rawOffset, rawOffset + runLength);
    const id = `${part}:${offset}:${rawOffset}:${runLength}:${digest}:${blockBytes}`;
    // A frame that was read again is another buffer.
    if (checked.get(id)?.buffer !== run.buffer) {
      if (run.length !== runLength || runDigest(run, blockBytes) !== digest)
        throw damaged(`content of ${name} does not match its SHA-256`, place(manifest.index.key));
      if (checked.size >= 64) checked.delete(checked.keys().next().value);
      checked.set(id, run);
    }
    if (skip + length > runLength) throw damaged(`the extents of ${name} do not fit`, place(manifest.index.key));
    return run.subarray(skip, skip + length);
  };
}

/** Raw content of a frame inside a part; the last ones are kept, because small files and slices share them. */
function frameReader(manifest, options) {
  const kept = new Map();
  return ([, , part, offset, length, counter]) => {
    const id = `${part}:${offset}`;
    const known = kept.get(id);
    if (known) return known;
    const { key, context, keyId } = manifest.parts[part] ?? {};
    if (key === undefined) throw damaged('the index names a part that the manifest lacks', place(manifest.index.key));
    const where = `${place(key)} (bytes ${offset} to ${offset + length - 1})`;
    if (!fs.existsSync(place(key))) throw damaged('a part is missing', where);
    const frame = Buffer.alloc(length);
    const file = fs.openSync(place(key));
    const got = fs.readSync(file, frame, 0, length, offset);
    fs.closeSync(file);
    if (got !== length) throw damaged('a part is cut off', where);
    const raw = openFrame(frame, counter, context, dataKey(keyId, options), where);
    if (kept.size >= 8) kept.delete(kept.keys().next().value);
    kept.set(id, raw);
    return raw;
  };
}

// ---- restoring files ------------------------------------------------------------------------------------------------------------

/** As near as Node sets times: within 250 ns. */
const seconds = (nanoseconds) => Number(BigInt(nanoseconds)) / 1e9;

/**
 * Restores all entries; `locate` gives the absolute path (bytes) of a path of the index. Directories get their modes and times from
 * the `finish` that it returns, when nothing is written in them any more.
 */
function restoreFiles(manifest, options, locate, owners) {
  const read = contentReader(manifest, options);
  const [directories, links, made, extended] = [[], [], new Set(), []];
  let files = 0;
  const makeParent = (absolute) => {
    const parent = absolute.subarray(0, absolute.lastIndexOf(47));
    if (!made.has(parent.toString('latin1'))) fs.mkdirSync(parent, { recursive: true, mode: 0o700 });
    made.add(parent.toString('latin1'));
  };
  for (const entry of readIndex(manifest, options)) {
    const absolute = locate(entry.path);
    if (entry.xa) extended.push(attributesOf(absolute, entry.xa));
    if (entry.t === 'd') {
      fs.mkdirSync(absolute, { recursive: true, mode: 0o700 });
      directories.push({ ...entry, absolute });
    } else if (entry.t === 'f') {
      makeParent(absolute);
      restoreFile(entry, absolute, read, place(manifest.index.key), owners);
      files++;
    } else links.push({ ...entry, absolute });
  }
  // Last, so that nothing is written through one.
  for (const { t, l, absolute, u, g, mt } of links) {
    makeParent(absolute);
    if (t === 'h') fs.linkSync(locate(safePath(l, place(manifest.index.key))), absolute);
    else {
      fs.symlinkSync(decodeName(l), absolute);
      if (owners) fs.lchownSync(absolute, u, g);
      fs.lutimesSync(absolute, seconds(mt), seconds(mt));
    }
  }
  const finish = () => {
    for (const { absolute, u, g, m, mt } of directories.sort((a, b) => b.absolute.length - a.absolute.length)) {
      if (owners) fs.chownSync(absolute, u, g);
      fs.chmodSync(absolute, m);
      fs.utimesSync(absolute, seconds(mt), seconds(mt));
    }
  };
  if (extended.length > 0) keepAttributes(`${locate(Buffer.alloc(0))}.attributes`, extended);
  return { files, finish };
}

/** Extended attributes of an entry as `getfattr --dump` writes them. */
function attributesOf(absolute, xa) {
  const escaped = (name) => {
    const octal = (byte) => `\\${byte.toString(8).padStart(3, '0')}`;
    return Buffer.from(
      name.toString('latin1').replace(/[\\\n\r=]/g, (c) => octal(c.charCodeAt(0))),
      'latin1',
    );
  };
  const lines = xa.flatMap(([name, value]) => [escaped(decodeName(name)), Buffer.from(`=0s${value}\n`)]);
  return Buffer.concat([Buffer.from('# file: '), escaped(absolute), Buffer.from('\n'), ...lines, Buffer.from('\n')]);
}

/** Node cannot set extended attributes (POSIX ACLs and capabilities are some): they are left for the program that can. */
function keepAttributes(file, extended) {
  fs.writeFileSync(file, Buffer.concat(extended), { mode: 0o600 });
  console.error(
    `Note: extended attributes (ACLs are some) of ${extended.length === 1 ? 'one entry' : `${extended.length} entries`} are not set yet. The program setfattr (package attr) does it, as root:\n  setfattr -h --restore=${file}`,
  );
}

function restoreFile({ x, b, s, c, m, u, g, mt, p }, absolute, read, indexPlace, owners) {
  const tree = createHash('sha256');
  const file = fs.openSync(absolute, 'wx', 0o600);
  try {
    let end = 0;
    for (const extent of x) {
      const [position, length, , , , , , digest, skip = 0, runLength = length] = extent;
      if (position < end || position + length > s) throw damaged(`the extents of ${p} do not fit`, indexPlace);
      const content = read(extent, b, p);
      for (let done = 0; done < length; ) done += fs.writeSync(file, content, done, length - done, position + done);
      tree.update(int64(position)).update(Buffer.from(digest, 'base64'));
      if (length !== runLength) tree.update(int64(skip)).update(int64(length));
      end = position + length;
    }
    if (tree.update(int64(s)).digest('base64') !== c) throw damaged(`the checksum of ${p} does not fit`, indexPlace);
    fs.ftruncateSync(file, s); // holes at the end
    if (owners) fs.fchownSync(file, u, g);
    fs.fchmodSync(file, m);
    fs.futimesSync(file, seconds(mt), seconds(mt));
    fs.fsyncSync(file);
  } finally {
    fs.closeSync(file);
  }
}

function restoreDirectory(manifest, options, target) {
  const locate = (name) => (name.length === 0 ? Buffer.from(target) : Buffer.concat([Buffer.from(`${target}/`), name]));
  const { files, finish } = restoreFiles(manifest, options, locate, process.getuid?.() === 0);
  const text = `Restored ${files} files of ${manifest.resource}, as of ${manifest.recoveryPoint}, to ${target}; every byte was checked.`;
  return { finish, text };
}

// ---- databases: tablespaces beside the data directory, WAL in pg_wal --------------------------------------------------------------

function restoreDatabase(manifest, options, target) {
  const { database } = manifest;
  const spaces = `${target}.tablespaces`;
  if (database.tablespaces.length > 0 && fs.existsSync(spaces) && fs.readdirSync(spaces).length > 0) {
    throw new Problem('the place for the tablespaces is not empty', spaces, 'Move away what is there.');
  }
  const locate = (name) => {
    const [, oid, rest = ''] = /^pg_tblspc\/(\d+)(\/.*)?$/.exec(name.toString()) ?? [];
    const known = database.tablespaces.some((space) => space.oid === Number(oid));
    return known ? Buffer.from(`${spaces}/${oid}${rest}`) : Buffer.concat([Buffer.from(`${target}/`), name]);
  };
  const { files, finish } = restoreFiles(manifest, options, locate, false);
  for (const { oid } of database.tablespaces) {
    fs.mkdirSync(`${spaces}/${oid}`, { recursive: true, mode: 0o700 });
    fs.symlinkSync(`${spaces}/${oid}`, path.join(target, 'pg_tblspc', String(oid)));
  }
  if (database.tablespaces.length > 0) {
    const lines = database.tablespaces.map(
      ({ oid }) => `${oid} ${`${spaces}/${oid}`.replaceAll(/[\\\n\r]/g, '\\$&')}\n`,
    );
    fs.writeFileSync(path.join(target, 'tablespace_map'), lines.join(''));
  }
  const wal = restoreWal(database, options, path.join(target, 'pg_wal'));
  const settings = [
    'max_connections',
    'max_worker_processes',
    'max_wal_senders',
    'max_prepared_transactions',
    'max_locks_per_transaction',
  ];
  const bare = !fs.existsSync(path.join(target, 'postgresql.conf'));
  const text = `Restored ${files} files and ${wal.segments} WAL files, up to ${wal.end}, to ${target}; every byte was checked.
  1. Give it to the server's user:  chown -R postgres: ${target}${database.tablespaces.length > 0 ? ` ${spaces}` : ''}
  2. ${bare ? `The backup has no postgresql.conf (it lay elsewhere): write one, and a pg_hba.conf, with at least ${settings.map((name) => `${name} = ${database.settings[name] ?? '?'}`).join(', ')}` : 'Look through postgresql.conf: archive_command, synchronous_standby_names and ports were those of the old server'}.
  3. Start PostgreSQL ${database.majorVersion} on it: it replays the WAL by itself.`;
  return { finish, text };
}

const lsnText = (lsn) => `${(lsn >> 32n).toString(16).toUpperCase()}/${(lsn & 0xffffffffn).toString(16).toUpperCase()}`;
const parseLsn = (text) => text.split('/').reduce((high, low) => (high << 32n) + BigInt(`0x${low}`), 0n);

/** Puts the archived WAL from the beginning of the backup on into `target`, as far as there is no hole. */
function restoreWal({ systemId, timeline, startLsn, endLsn, segmentBytes }, options, target) {
  const folder = `wal/${systemId}/${hex(timeline)}`;
  const archived = names(folder);
  const perId = 0x100000000n / BigInt(segmentBytes);
  fs.mkdirSync(target, { recursive: true, mode: 0o700 });
  let number = parseLsn(startLsn) / BigInt(segmentBytes);
  let [segments, end, placed] = [0, number * BigInt(segmentBytes), ''];
  for (; ; number++) {
    const name = hex(timeline) + hex(number / perId) + hex(number % perId);
    const start = number * BigInt(segmentBytes);
    const content = Buffer.alloc(segmentBytes); // PostgreSQL wants files of full size; zeros end the WAL
    let filled = 0;
    // A whole segment before pieces; of pieces, which may overlap, always the one that reaches furthest.
    const pieces = archived
      .filter((file) => file === name || file.startsWith(`${name}.`))
      .map((file) => ({
        file,
        from: file === name ? 0 : parseInt(file.slice(25, 33), 16),
        to: file === name ? segmentBytes : parseInt(file.slice(34), 16),
      }));
    while (filled < segmentBytes) {
      const best = pieces.filter(({ from, to }) => from <= filled && to > filled).sort((a, b) => b.to - a.to)[0];
      if (!best) break;
      readWal(
        `${folder}/${best.file}`,
        { systemId, timeline, start: lsnText(start + BigInt(best.from)), length: best.to - best.from },
        options,
      ).copy(content, best.from);
      filled = best.to;
    }
    if (filled === 0) break;
    fs.writeFileSync(path.join(target, name), content, { flag: 'wx', mode: 0o600, flush: true });
    segments++;
    placed = name;
    end = start + BigInt(filled);
    if (filled < segmentBytes) break;
  }
  if (end < parseLsn(endLsn)) {
    throw new Problem(
      `the archive reaches ${lsnText(end)}; this backup is consistent only from ${endLsn} on`,
      place(folder),
      'Take an older backup (--backup ID), or another vault.',
    );
  }
  const beyond = archived.filter((file) => /^[0-9A-F]{24}/.test(file) && file.slice(0, 24) > placed).at(-1);
  if (beyond)
    console.error(`Note: the archive has a hole at ${lsnText(end)}; WAL after it, up to ${beyond}, cannot be used.`);
  return { segments, end: lsnText(end) };
}

/** Raw WAL of one object, which must be the one that its name says. */
function readWal(key, expected, options) {
  const where = place(key);
  const bytes = readObject(key, 'archived WAL');
  const headerEnd =
    bytes.length >= 40 && bytes.toString('latin1', 0, 4) === 'DRW1'
      ? 8 + bytes.readUInt32BE(4)
      : Number.POSITIVE_INFINITY;
  const body = bytes.subarray(0, -32);
  if (headerEnd > body.length || !sha256(body).equals(bytes.subarray(-32)))
    throw damaged('archived WAL does not match its checksum', where);
  const header = parseRecord(bytes.subarray(8, headerEnd), 'the header of archived WAL', where);
  for (const [field, value] of Object.entries(expected)) {
    if (header[field] !== value)
      throw damaged(`archived WAL stands under a wrong name: its ${field} is ${header[field]}`, where);
  }
  const context = `wal/${header.systemId}/${header.timeline}/${header.start}/${sha256(bytes.subarray(8, headerEnd)).toString('hex')}`;
  const raw = Buffer.concat([
    ...framesOf(body.subarray(headerEnd), context, dataKey(header.keyId, options), where, header.counter),
  ]);
  if (sha256(raw).toString('hex') !== header.rawSha256)
    throw damaged('the content of archived WAL does not match its SHA-256', where);
  return raw;
}

// ---- the commands -----------------------------------------------------------------------------------------------------------------

function list() {
  for (const resource of names('manifests')) {
    for (const file of names(`manifests/${resource}`)) {
      const { id, kind, recoveryPoint, logicalBytes, entries, encryption } = readManifest(
        resource,
        file.replace(/\.json$/, ''),
      );
      console.log(
        `${resource}  ${id}  ${kind}  ${recoveryPoint}  ${entries} entries, ${logicalBytes} bytes, encryption ${encryption}`,
      );
    }
  }
}

function restore(resource, to, options) {
  const ids = names(`manifests/${resource}`).map((file) => file.replace(/\.json$/, ''));
  const id = options.backup ?? ids.at(-1);
  if (id === undefined || !ids.includes(id)) {
    throw new Problem(
      `there is no backup ${id ?? ''} of ${resource}`,
      vault,
      `"list" shows what there is: ${names('manifests').join(', ')}.`,
    );
  }
  const manifest = readManifest(resource, id);
  // Keys first: a wrong identity must not leave anything behind.
  for (const { keyId } of [manifest.index, ...manifest.parts]) dataKey(keyId, options);
  const target = path.resolve(to);
  fs.mkdirSync(target, { recursive: true, mode: 0o700 });
  const there = fs.readdirSync(target);
  if (there.length > 0)
    throw new Problem(`the target is not empty (${there[0]})`, target, 'Name a new or empty directory.');
  const marker = path.join(target, '.dr-restore-incomplete');
  fs.writeFileSync(marker, `${id}\n`);
  const { finish, text } = manifest.database
    ? restoreDatabase(manifest, options, target)
    : restoreDirectory(manifest, options, target);
  fs.rmSync(marker);
  finish();
  console.log(text);
}

function main(args) {
  const options = {};
  const rest = [];
  for (let i = 0; i < args.length; i++) {
    const flags = {
      '--backup': 'backup',
      '--identity': 'identity',
      '--data-keys': 'dataKeys',
      '--data-key': 'dataKey',
    };
    const name = flags[args[i]];
    if (name !== undefined) options[name] = args[++i];
    else rest.push(args[i]);
  }
  openedElsewhere = (options.dataKeys ?? options.dataKey) !== undefined;
  const [from, verb, ...words] = rest;
  if (!(verb === 'list' && words.length === 0) && !(verb === 'restore' && words.length === 2)) {
    console.error(usage);
    return 2;
  }
  if (typeof zlib.zstdDecompressSync !== 'function')
    throw new Problem(`this is Node ${process.versions.node}`, process.execPath, 'Use Node 24 or newer.');
  vault = path.resolve(from);
  if (!fs.existsSync(place('dr-vault.json')))
    throw new Problem(
      'there is no vault: it has no dr-vault.json',
      vault,
      'Name the directory that holds dr-vault.json.',
    );
  const { format } = JSON.parse(fs.readFileSync(place('dr-vault.json'), 'utf8'));
  if (!(format <= 2))
    throw new Problem(`the vault has format ${format}`, vault, 'Use the dr-restore.mjs of a newer dr.');
  if (verb === 'list') list();
  else restore(words[0], words[1], options);
  return 0;
}

try {
  process.exitCode = main(process.argv.slice(2));
} catch (error) {
  if (!(error instanceof Problem) && error.code === undefined) throw error;
  console.error(
    `error: ${error.message}\n${error.where ? `  where: ${error.where}\n` : ''}${error.next ? `  next:  ${error.next}\n` : ''}`,
  );
  process.exitCode = 1;
}
