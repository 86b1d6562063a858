import { execFileSync } from 'node:child_process';
import { chmodSync, closeSync, lstatSync, mkdirSync, openSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { describe, expect, test } from 'vitest';
import {
  type FileAttributes,
  readExtendedAttributes,
  removeInheritedAcls,
  setFileAttributes,
} from '../../src/base/file-attributes.ts';
import { libc } from '../../src/base/libc.ts';
import { nodeBinary } from '../harness/process.ts';
import { tempDir } from '../harness/temp.ts';

const isRoot = process.getuid?.() === 0;

/** The attributes that a file here may have: ACLs need no rights, `trusted` and `security` need root. */
const acl = Buffer.from(
  '02000000 0100 0600 ffffffff 0200 0400 e8030000 0400 0400 ffffffff 1000 0400 ffffffff 2000 0000 ffffffff'.replaceAll(
    ' ',
    '',
  ),
  'hex',
);
const capability = Buffer.from('0100000200200000000000000000000000000000', 'hex');

function attribute(name: string | Buffer, value: string | Buffer) {
  return { name: Buffer.from(name), value: Buffer.from(value) };
}

function plain(more: Partial<FileAttributes>): FileAttributes {
  return { mode: 0o640, owner: undefined, mtimeNs: 1_700_000_000_123_456_789n, extended: [], ...more };
}

async function strangeFile(): Promise<Buffer> {
  const folder = await tempDir('attributes');
  const file = Buffer.concat([Buffer.from(`${folder}/`), Buffer.from([0x66, 0xff, 0xfe])]);
  writeFileSync(file, 'x');
  return file;
}

describe.runIf(process.platform === 'linux')('on Linux', () => {
  const calls = libc();
  if (!calls) throw new Error('koffi is not installed');

  test('attributes, ACL, mode and time of a file come back, exact to the nanosecond', async () => {
    const extended = [
      ...(isRoot ? [attribute('security.capability', capability)] : []),
      attribute('system.posix_acl_access', acl),
      ...(isRoot ? [attribute('trusted.note', Buffer.from([0, 1, 255]))] : []),
      attribute('user.empty', ''),
      attribute(Buffer.concat([Buffer.from('user.'), Buffer.from([0xfe, 0xff])]), 'a name that is not UTF-8'),
      attribute('user.large', Buffer.alloc(3000, 'v')),
    ].sort((a, b) => Buffer.compare(a.name, b.name));
    const file = await strangeFile();
    const fd = openSync(file, 'r+');
    try {
      expect(setFileAttributes(fd, 'file', plain({ extended }))).toEqual([]);
      expect(readExtendedAttributes(fd, calls)).toEqual(extended);
    } finally {
      closeSync(fd);
    }
    // By its path as well, which need not be UTF-8.
    expect(readExtendedAttributes(file, calls)).toEqual(extended);
    const stats = statSync(file, { bigint: true });
    expect(stats.mtimeNs).toBe(1_700_000_000_123_456_789n);
    expect(stats.mode & 0o7777n).toBe(0o640n);
  });

  test.runIf(isRoot)('the owner does not take the set-user-id bit and capabilities away', async () => {
    const file = await strangeFile();
    const extended = [attribute('security.capability', capability)];
    expect(setFileAttributes(file, 'file', plain({ mode: 0o4755, owner: { uid: 1234, gid: 1235 }, extended }))).toEqual(
      [],
    );
    expect(readExtendedAttributes(file, calls)).toEqual(extended);
    expect(statSync(file)).toMatchObject({ uid: 1234, gid: 1235 });
    expect(statSync(file).mode & 0o7777).toBe(0o4755);
  });

  test('a file of a read-only mode keeps its user attributes', async () => {
    const file = await strangeFile();
    const extended = [attribute('user.a', '1')];
    expect(setFileAttributes(file, 'file', plain({ mode: 0o400, extended }))).toEqual([]);
    expect(readExtendedAttributes(file, calls)).toEqual(extended);
  });

  test('a symbolic link has its own time and attributes; what it points to is not touched', async () => {
    const folder = await tempDir('link');
    const file = path.join(folder, 'file');
    const link = Buffer.from(path.join(folder, 'link'));
    writeFileSync(file, 'x');
    symlinkSync('file', link);
    const before = statSync(file, { bigint: true });
    const extended = [attribute('trusted.link', 'own'), attribute('user.no', 'links have none')];
    const unset = setFileAttributes(link, 'symlink', plain({ mode: 0o777, extended, mtimeNs: -1n }));
    expect(unset.map(({ name }) => name)).toEqual(isRoot ? ['user.no'] : ['trusted.link', 'user.no']);
    expect(lstatSync(link, { bigint: true }).mtimeNs).toBe(-1n);
    expect(readExtendedAttributes(link, calls)).toEqual(isRoot ? [attribute('trusted.link', 'own')] : []);
    expect(statSync(file, { bigint: true })).toMatchObject({ mtimeNs: before.mtimeNs, ctimeNs: before.ctimeNs });
    expect(readExtendedAttributes(Buffer.from(file), calls)).toEqual([]);
  });

  test('what cannot be set is told, and does not keep the rest from being set', async () => {
    const file = await strangeFile();
    const extended = [
      attribute('nonsense.name', 'x'),
      attribute('user.good', 'yes'),
      attribute('user.huge', Buffer.alloc(60_000)),
    ];
    const unset = setFileAttributes(file, 'file', plain({ extended }));
    expect(unset.map(({ name }) => name)).toContain('nonsense.name');
    for (const { reason } of unset) expect(reason).not.toBe('');
    expect(readExtendedAttributes(file, calls)).toContainEqual(attribute('user.good', 'yes'));
    expect(statSync(file).mode & 0o7777).toBe(0o640);
  });

  test('a new directory is rid of the ACLs that it inherited', async () => {
    const folder = Buffer.from(await tempDir('inherits'));
    const defaults = attribute('system.posix_acl_default', acl);
    setFileAttributes(folder, 'directory', plain({ mode: 0o755, extended: [defaults] }));
    const inner = Buffer.concat([folder, Buffer.from('/inner')]);
    mkdirSync(inner);
    expect(readExtendedAttributes(inner, calls)).toHaveLength(2);
    removeInheritedAcls(inner);
    expect(readExtendedAttributes(inner, calls)).toEqual([]);
  });

  test('errors carry their code; a file system flush answers', async () => {
    expect(() => calls.listAttributes(Buffer.from('/nowhere/at/all'))).toThrow(
      expect.objectContaining({ code: 'ENOENT' }),
    );
    await expect(calls.syncFileSystem(-1)).rejects.toMatchObject({ code: 'EBADF' });
    const fd = openSync(await tempDir('sync'), 'r');
    await calls.syncFileSystem(fd);
    closeSync(fd);
  });
});

test('without the package: attributes are told as not set, times are within 250 ns', async () => {
  const file = path.join(await tempDir('without'), 'file');
  writeFileSync(file, 'x');
  chmodSync(file, 0o600);
  // A hook of the module loader hides the package: what happens where npm could not install it.
  const hook = `import module from 'node:module';
    const resolve = module._resolveFilename;
    module._resolveFilename = function (name, ...rest) {
      if (name === 'koffi') throw Object.assign(new Error('hidden'), { code: 'MODULE_NOT_FOUND' });
      return resolve.call(this, name, ...rest);
    };`;
  const source = pathToFileURL(path.resolve('src/base/file-attributes.ts')).href;
  const script = `const { setFileAttributes } = await import(${JSON.stringify(source)});
    const { libc } = await import(${JSON.stringify(source.replace('file-attributes', 'libc'))});
    if (libc() !== undefined) throw new Error('the package was not hidden');
    const extended = [{ name: Buffer.from('user.a'), value: Buffer.from('1') }];
    const attributes = { mode: 0o644, owner: undefined, mtimeNs: 1700000000123456789n, extended };
    console.log(JSON.stringify(setFileAttributes(Buffer.from(${JSON.stringify(file)}), 'file', attributes)));`;
  const url = (text: string) => `data:text/javascript,${encodeURIComponent(text)}`;
  const output = execFileSync(nodeBinary, ['--import', url(hook), '--input-type=module', '-e', script], {
    encoding: 'utf8',
  });
  expect(JSON.parse(output)).toEqual([{ name: 'user.a', reason: expect.stringContaining('koffi') }]);
  const { mtimeNs, mode } = statSync(file, { bigint: true });
  expect(mode & 0o7777n).toBe(0o644n);
  expect(Number(mtimeNs - 1_700_000_000_123_456_789n)).toBeLessThan(250);
  expect(Number(mtimeNs - 1_700_000_000_123_456_789n)).toBeGreaterThan(-250);
});
