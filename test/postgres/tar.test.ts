import { execFileSync } from 'node:child_process';
import { linkSync, mkdirSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type TarEntry, TarReader } from '../../src/postgres/tar.ts';
import { tempDir } from '../harness/temp.ts';

interface Member {
  readonly name: string;
  readonly content: Uint8Array;
  readonly type?: string;
  readonly link?: string;
  /** As in the header, when it is not the content's length. */
  readonly size?: number;
}

/** As PostgreSQL's `tarCreateHeader`: octal, or base 256 where octal has no room. */
function header(member: Member): Buffer {
  const block = Buffer.alloc(512);
  const octal = (value: number, at: number, length: number) =>
    block.write(value.toString(8).padStart(length - 1, '0'), at);
  block.write(member.name, 0, 100);
  octal(0o600, 100, 8);
  octal(26, 108, 8);
  octal(27, 116, 8);
  const size = member.size ?? member.content.length;
  if (size < 0o77777777777) octal(size, 124, 12);
  else {
    block[124] = 0x80;
    block.writeBigUInt64BE(BigInt(size), 128);
  }
  octal(1_700_000_000, 136, 12);
  block.write(member.type ?? '0', 156);
  block.write(member.link ?? '', 157, 100);
  block.write('ustar\x0000', 257);
  block.fill(0x20, 148, 156);
  octal(
    block.reduce((sum, byte) => sum + byte, 0),
    148,
    7,
  );
  return block;
}

function archive(members: readonly Member[]): Buffer {
  const parts = members.flatMap((member) => [
    header(member),
    Buffer.from(member.content),
    Buffer.alloc((512 - (member.content.length % 512)) % 512),
  ]);
  return Buffer.concat([...parts, Buffer.alloc(1024)]);
}

/** Everything that the reader gave, with `slow` deciding after each call whether it makes the reader wait. */
async function read(bytes: Buffer, sizes: readonly number[] = [64 * 1024], slow: () => boolean = () => false) {
  const entries: Array<{ entry: TarEntry; content: Buffer }> = [];
  let open: { entry: TarEntry; chunks: Buffer[] } | undefined;
  let busy = false;
  const maybe = () => {
    expect(busy).toBe(false);
    if (!slow()) return undefined;
    busy = true;
    return Promise.resolve().then(() => {
      busy = false;
    });
  };
  const reader = new TarReader(
    {
      entry: (entry) => {
        expect(open).toBeUndefined();
        open = { entry, chunks: [] };
        return maybe();
      },
      data: (chunk) => {
        expect(chunk.length).toBeGreaterThan(0);
        open?.chunks.push(Buffer.from(chunk));
        return maybe();
      },
      endEntry: () => {
        if (open) entries.push({ entry: open.entry, content: Buffer.concat(open.chunks) });
        open = undefined;
        return maybe();
      },
    },
    'test',
  );
  let turn = 0;
  for (let at = 0; at < bytes.length; ) {
    const size = Math.max(1, sizes[turn++ % sizes.length] ?? 1);
    await reader.write(bytes.subarray(at, at + size));
    at += size;
  }
  reader.end();
  return entries;
}

describe('TarReader', () => {
  it('reads what was written, cut anywhere, with a sink that makes it wait or not', async () => {
    const member = fc.record({
      name: fc.stringMatching(/^[a-z0-9_/.]{1,90}[a-z]$/),
      content: fc.uint8Array({ maxLength: 1600 }),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.array(member, { maxLength: 8 }),
        fc.array(fc.integer({ min: 1, max: 1500 }), { minLength: 1, maxLength: 6 }),
        fc.array(fc.boolean(), { minLength: 1 }),
        async (members, sizes, waits) => {
          let turn = 0;
          const got = await read(archive(members), sizes, () => waits[turn++ % waits.length] ?? false);
          expect(got.map(({ entry }) => entry.path)).toEqual(members.map(({ name }) => name));
          for (const [index, { content }] of members.entries()) {
            expect(got[index]?.entry.size).toBe(content.length);
            expect(got[index]?.content.equals(content)).toBe(true);
          }
        },
      ),
      { numRuns: 200 },
    );
  });

  it('reads mode, owner, time, folders, links and sizes above 8 GiB', async () => {
    const got = await read(
      archive([
        { name: 'global/', content: Buffer.alloc(0), type: '5' },
        { name: 'pg_tblspc/16384', content: Buffer.alloc(0), type: '2', link: '/srv/space' },
        { name: 'PG_VERSION', content: Buffer.from('17\n') },
      ]),
    );
    expect(got.map(({ entry: { path, type, linkTarget } }) => [path, type, linkTarget])).toEqual([
      ['global', 'directory', undefined],
      ['pg_tblspc/16384', 'symlink', '/srv/space'],
      ['PG_VERSION', 'file', undefined],
    ]);
    expect(got[2]?.entry).toMatchObject({ mode: 0o600, uid: 26, gid: 27, mtimeMs: 1_700_000_000_000, size: 3 });

    let size = 0;
    const large = new TarReader(
      {
        entry: (entry) => {
          size = entry.size;
        },
        data: () => {},
        endEntry: () => {},
      },
      'test',
    );
    large.write(header({ name: 'large', content: Buffer.alloc(0), size: 9 * 2 ** 30 + 1 }));
    expect(size).toBe(9 * 2 ** 30 + 1);
  });

  it.each([['ustar'], ['gnu'], ['pax']])(
    'reads what tar writes as %s: long and odd names, links, nanosecond times',
    async (format) => {
      const dir = await tempDir('tar');
      const long = format === 'ustar' ? `${'d'.repeat(90)}/${'f'.repeat(90)}` : `${'d'.repeat(120)}/${'f'.repeat(130)}`;
      mkdirSync(join(dir, 'src', long, '..'), { recursive: true });
      writeFileSync(join(dir, 'src', long), 'long name');
      const odd = Buffer.concat([Buffer.from(join(dir, 'src/')), Buffer.from([0x62, 0xff, 0x0a])]);
      writeFileSync(odd, Buffer.alloc(100_000, 7));
      symlinkSync('x'.repeat(format === 'ustar' ? 90 : 150), join(dir, 'src/link'));
      linkSync(odd, join(dir, 'src/hard'));
      utimesSync(join(dir, 'src', long), 1_700_000_000.5, 1_700_000_000.5);
      const bytes = execFileSync(
        'tar',
        [`--format=${format}`, '--sort=name', '-cf', '-', '-C', join(dir, 'src'), '.'],
        { maxBuffer: 1e8 },
      );
      // GNU tar fills its last record with zeros; some, but no content, may follow the trailer.
      const got = new Map((await read(bytes, [1000])).map((item) => [item.entry.path.replace(/^\.\//, ''), item]));
      expect(got.get(long)?.content.toString()).toBe('long name');
      expect(got.get(long)?.entry.mtimeMs).toBe(format === 'pax' ? 1_700_000_000_500 : 1_700_000_000_000);
      expect(got.get('link')?.entry.linkTarget).toBe('x'.repeat(format === 'ustar' ? 90 : 150));
      const spoiled = [...got.values()].find(({ entry }) => entry.rawPath !== undefined);
      expect(spoiled?.entry.rawPath?.toString('latin1')).toBe('./b\xff\n');
      expect([spoiled?.entry.type, got.get('hard')?.entry.type].sort()).toEqual(['file', 'hardlink']);
      expect(got.get('.')?.entry.type).toBe('directory');
    },
  );

  it('refuses damage: a flipped bit of a header, an end before the trailer, bytes after it, an unknown kind', async () => {
    const good = archive([{ name: 'a', content: Buffer.alloc(700, 1) }]);
    for (const at of [0, 100, 124, 150, 156]) {
      const bad = Buffer.from(good);
      bad[at] = (bad[at] ?? 0) ^ 1;
      await expect(read(bad), `byte ${at}`).rejects.toMatchObject({ kind: 'corrupt' });
    }
    for (const length of [100, 512, 900, 1536, 2048]) {
      await expect(read(good.subarray(0, length)), `${length} bytes`).rejects.toMatchObject({ kind: 'corrupt' });
    }
    await expect(read(Buffer.concat([good, good]))).rejects.toMatchObject({ kind: 'corrupt' });
    await expect(read(archive([{ name: 'tty', content: Buffer.alloc(0), type: '3' }]))).rejects.toMatchObject({
      kind: 'corrupt',
    });
    await expect(read(archive([{ name: 'x', content: Buffer.from('zz broken'), type: 'x' }]))).rejects.toMatchObject({
      kind: 'corrupt',
    });
  });

  it('passes on a failure of the sink', async () => {
    const reader = new TarReader(
      { entry: () => {}, data: () => Promise.reject(new Error('disk full')), endEntry: () => {} },
      'test',
    );
    await expect(reader.write(archive([{ name: 'a', content: Buffer.alloc(10) }]))).rejects.toThrow('disk full');
  });
});
