import { createHash, randomBytes } from 'node:crypto';
import {
  closeSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  symlinkSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { type ExtendedAttribute, readExtendedAttributes, setFileAttributes } from '../src/base/file-attributes.ts';
import { libc } from '../src/base/libc.ts';

/** What a benchmark's tree is made of. */
export interface TreeShape {
  /** Small files of 0 to 64 KiB, 16 KiB on average: most are small, as in real trees. */
  readonly files: number;
  readonly folders: number;
  /** Bytes of large files, 256 MiB each. */
  readonly largeBytes: number;
}

const SMALL_BYTES = 64 * 1024;
const LARGE_BYTES = 256 * 1024 * 1024;
const PIECE_BYTES = 64 * 1024;
const isRoot = process.getuid?.() === 0;

/** Numbers that are the same in every run: a linear congruential generator with 48 bits. */
function generator(seed: number): () => number {
  let state = BigInt(seed) + 0x5deece66dn;
  return () => {
    state = (state * 0x5deece66dn + 11n) & 0xffffffffffffn;
    return Number(state >> 16n) / 2 ** 32;
  };
}

/** Text that compresses to about a third and never repeats as a whole, and noise that does not compress. */
class Content {
  readonly #random: () => number;
  readonly #words: Buffer[];

  constructor(seed: number) {
    this.#random = generator(seed);
    this.#words = Array.from({ length: 4096 }, () =>
      Buffer.from(`${randomBytes(1 + Math.floor(this.#random() * 5)).toString('hex')} `),
    );
  }

  text(bytes: number): Buffer {
    const text = Buffer.allocUnsafe(bytes);
    for (let at = 0; at < bytes; ) {
      const word = this.#words[Math.floor(this.#random() * this.#words.length)];
      at += word?.copy(text, at) ?? 0;
    }
    return text;
  }

  /** Half of the files are text, half noise. */
  small(bytes: number): Buffer {
    return this.#random() < 0.5 ? this.text(bytes) : randomBytes(bytes);
  }
}

/** Makes the tree: folders of up to 10 below each other, files, a few links, owners, modes, times and extended attributes. */
export function makeTree(root: string, shape: TreeShape): void {
  const random = generator(1);
  const content = new Content(2);
  mkdirSync(root, { recursive: true });
  const folders = folderNames(shape.folders);
  for (const folder of folders) mkdirSync(join(root, folder), { recursive: true });
  for (let i = 0; i < shape.files; i++) {
    const file = join(root, fileName(folders, i));
    write(file, 0, content.small(Math.floor(SMALL_BYTES * random() ** 3)), 'w');
    dress(file, i, random);
    if (i % 200 === 0) symlinkSync(`file-${i}`, `${file}.link`);
  }
  mkdirSync(join(root, 'large'), { recursive: true });
  for (let i = 0; i < Math.round(shape.largeBytes / LARGE_BYTES); i++) {
    const file = join(root, 'large', `large-${i}`);
    for (let at = 0; at < LARGE_BYTES; at += PIECE_BYTES) {
      // Two fifths do not compress.
      const noise = at % (5 * PIECE_BYTES) < 2 * PIECE_BYTES;
      write(file, at, noise ? randomBytes(PIECE_BYTES) : content.text(PIECE_BYTES), 'a');
    }
    dress(file, i, random);
  }
}

/** Changes 1 % of the small files (other content, half of them of the same size), and 1 % of each large file, at 41 places of 64 KiB. */
export function changeTree(root: string, shape: TreeShape, round: number): void {
  const random = generator(1000 + round);
  const content = new Content(2000 + round);
  const folders = folderNames(shape.folders);
  for (let i = 0; i < Math.max(1, shape.files / 100); i++) {
    const file = join(root, fileName(folders, Math.floor(random() * shape.files)));
    const { size } = lstatSync(file);
    write(file, 0, content.small(i % 2 === 0 ? size : Math.floor(SMALL_BYTES * random() ** 3)), 'w');
  }
  for (let i = 0; i < Math.round(shape.largeBytes / LARGE_BYTES); i++) {
    for (let n = 0; n < LARGE_BYTES / PIECE_BYTES / 100; n++) {
      const at = Math.floor((random() * LARGE_BYTES) / PIECE_BYTES) * PIECE_BYTES;
      write(join(root, 'large', `large-${i}`), at, content.text(PIECE_BYTES), 'r+');
    }
  }
}

/** Everything that a restore must bring back: for each path one line. Directories' own sizes and links' times are the system's. */
export function describeTree(root: string): Map<string, string> {
  const calls = libc();
  if (!calls) throw new Error('koffi is missing: npm install');
  const lines = new Map<string, string>();
  const visit = (relative: string) => {
    const absolute = join(root, relative);
    const stats = lstatSync(absolute, { bigint: true });
    const extended = readExtendedAttributes(Buffer.from(absolute), calls);
    const content = stats.isFile()
      ? createHash('sha256').update(readFileSync(absolute)).digest('hex')
      : stats.isSymbolicLink()
        ? readlinkSync(absolute)
        : '';
    const time = stats.isFile() || stats.isDirectory() ? stats.mtimeNs : '';
    lines.set(relative, [stats.mode, stats.uid, stats.gid, time, content, ...extended.map(textOf)].join(' '));
    if (stats.isDirectory()) for (const name of readdirSync(absolute)) visit(join(relative, name));
  };
  visit('');
  return lines;
}

function textOf({ name, value }: ExtendedAttribute): string {
  return `${Buffer.from(name).toString()}=${Buffer.from(value).toString('hex')}`;
}

function folderNames(count: number): string[] {
  return Array.from({ length: count }, (_, i) => join(`a${i % 10}`, `b${Math.floor(i / 10) % 10}`, `c${i}`));
}

function fileName(folders: readonly string[], i: number): string {
  return join(folders[i % folders.length] ?? '', `file-${i}`);
}

function write(file: string, at: number, content: Buffer, flags: 'w' | 'a' | 'r+'): void {
  const fd = openSync(file, flags);
  try {
    for (let done = 0; done < content.length; ) done += writeSync(fd, content, done, content.length - done, at + done);
  } finally {
    closeSync(fd);
  }
}

/** Gives a file what else a backup has to keep. */
function dress(file: string, i: number, random: () => number): void {
  const extended: ExtendedAttribute[] = [];
  if (i % 50 === 0) extended.push({ name: Buffer.from('system.posix_acl_access'), value: acl });
  if (i % 20 === 0) extended.push({ name: Buffer.from('user.origin'), value: Buffer.from(`import ${i}`) });
  setFileAttributes(Buffer.from(file), 'file', {
    mode: [0o644, 0o600, 0o755, 0o664][i % 4] ?? 0o644,
    owner: isRoot ? { uid: 1000 + (i % 7), gid: 1000 + (i % 3) } : undefined,
    mtimeNs: 1_600_000_000_000_000_000n + BigInt(Math.floor(random() * 1e8)) * 1_000_000_123n,
    extended,
  });
}

/** `user::rw-, user:1000:r--, group::r--, mask::r--, other::---` as Linux keeps it. It decides the mode, too. */
const acl = Buffer.from(
  '0200000001000600ffffffff02000400e803000004000400ffffffff10000400ffffffff20000000ffffffff',
  'hex',
);
