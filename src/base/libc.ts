import { createRequire } from 'node:module';
import { getSystemErrorMap } from 'node:util';
import type * as koffi from 'koffi';

/** An open file, or a path as bytes whose last part is never followed when it is a symbolic link. */
export type FileRef = number | Buffer;

/** Calls of the C library that Node lacks. All throw errors with `code` as Node's own calls do. */
export interface LibC {
  /** Names of the extended attributes; POSIX ACLs are among them (`system.posix_acl_access`). `ENOTSUP`: the file system has none. */
  listAttributes(of: FileRef): Buffer[];
  /** The value; undefined when it went meanwhile. */
  getAttribute(of: FileRef, name: Buffer): Buffer | undefined;
  setAttribute(of: FileRef, name: Buffer, value: Uint8Array): void;
  removeAttribute(of: FileRef, name: Buffer): void;
  /** Access and modification time, nanoseconds since 1970: Node's own calls take a double, which is exact to 250 ns only. */
  setTimes(of: FileRef, ns: bigint): void;
  /** Everything written so far to the file system of this open file or directory is durable (`syncfs`). */
  syncFileSystem(fd: number): Promise<void>;
  /** Gives freed memory that the C library keeps back to the system; absent where it has no such call (musl). */
  readonly trimMemory?: (() => void) | undefined;
}

let loaded: { readonly calls: LibC | undefined } | undefined;

/** The calls, or undefined where they cannot be made: not Linux on a 64-bit processor, or the optional package `koffi` is missing. */
export function libc(): LibC | undefined {
  loaded ??= { calls: load() };
  return loaded.calls;
}

/** Why `libc()` is undefined, for messages. */
export const WITHOUT_LIBC =
  process.platform === 'linux'
    ? 'the optional npm package koffi is not installed'
    : `dr keeps them on Linux only, and this is ${process.platform}`;

function load(): LibC | undefined {
  // The structures below are those of 64-bit Linux.
  if (process.platform !== 'linux' || !['x64', 'arm64'].includes(process.arch)) return undefined;
  let library: koffi.LibraryHandle;
  let ffi: typeof koffi;
  try {
    ffi = createRequire(import.meta.url)('koffi') as typeof koffi;
    // The C library that Node itself runs on, be it glibc or musl.
    library = ffi.load(null);
  } catch {
    return undefined;
  }
  return callsOf(ffi, library);
}

const NAMES_BYTES = 64 * 1024;
/** Linux allows no larger value. */
const VALUE_BYTES = 64 * 1024;
const AT_FDCWD = -100;
const AT_SYMLINK_NOFOLLOW = 0x100;

function callsOf(ffi: typeof koffi, library: koffi.LibraryHandle): LibC {
  const names = Buffer.allocUnsafeSlow(NAMES_BYTES);
  const value = Buffer.allocUnsafeSlow(VALUE_BYTES);
  const times = Buffer.alloc(32);
  const pair = (fdCall: string, pathCall: string, result: string, rest: string) => {
    const [byFd, byPath] = [`${result} ${fdCall}(int fd, ${rest})`, `${result} ${pathCall}(const void *path, ${rest})`];
    const [onFd, onPath] = [library.func(byFd), library.func(byPath)];
    return (of: FileRef, ...args: unknown[]): number => {
      const answer: unknown = typeof of === 'number' ? onFd(of, ...args) : onPath(terminated(of), ...args);
      if (typeof answer !== 'number' || answer < 0)
        throw errorOf(ffi.errno(), typeof of === 'number' ? fdCall : pathCall);
      return answer;
    };
  };
  const list = pair('flistxattr', 'llistxattr', 'intptr_t', 'void *list, size_t size');
  const get = pair('fgetxattr', 'lgetxattr', 'intptr_t', 'const void *name, void *value, size_t size');
  const set = pair('fsetxattr', 'lsetxattr', 'int', 'const void *name, const void *value, size_t size, int flags');
  const remove = pair('fremovexattr', 'lremovexattr', 'int', 'const void *name');
  const futimens = library.func('int futimens(int fd, const void *times)');
  const utimensat = library.func('int utimensat(int fd, const void *path, const void *times, int flags)');
  const syncfs = library.func('int syncfs(int fd)');
  let trim: ReturnType<koffi.LibraryHandle['func']> | undefined;
  try {
    trim = library.func('int malloc_trim(size_t pad)');
  } catch {
    // Another C library than glibc.
  }
  return {
    listAttributes(of) {
      const bytes = list(of, names, NAMES_BYTES);
      const found: Buffer[] = [];
      for (let at = 0; at < bytes; ) {
        const end = names.indexOf(0, at);
        found.push(Buffer.from(names.subarray(at, end)));
        at = end + 1;
      }
      return found;
    },
    getAttribute(of, name) {
      try {
        return Buffer.from(value.subarray(0, get(of, terminated(name), value, VALUE_BYTES)));
      } catch (error) {
        if (error instanceof Error && 'code' in error && error.code === 'ENODATA') return undefined;
        throw error;
      }
    },
    setAttribute(of, name, bytes) {
      set(of, terminated(name), bytes, bytes.length, 0);
    },
    removeAttribute(of, name) {
      remove(of, terminated(name));
    },
    trimMemory: trim && (() => void trim(0)),
    setTimes(of, ns) {
      // Nanoseconds are counted upwards, before 1970 too.
      const rest = ((ns % 1_000_000_000n) + 1_000_000_000n) % 1_000_000_000n;
      for (const at of [0, 16]) {
        times.writeBigInt64LE((ns - rest) / 1_000_000_000n, at);
        times.writeBigInt64LE(rest, at + 8);
      }
      const failed: unknown =
        typeof of === 'number' ? futimens(of, times) : utimensat(AT_FDCWD, terminated(of), times, AT_SYMLINK_NOFOLLOW);
      if (failed !== 0) throw errorOf(ffi.errno(), 'utimensat');
    },
    async syncFileSystem(fd) {
      await new Promise<void>((resolve, reject) => {
        syncfs.async(fd, (error: unknown, failed: unknown) => {
          if (error) reject(error);
          else if (failed === 0) resolve();
          // Of the call that this callback belongs to: koffi keeps it.
          else reject(errorOf(ffi.errno(), 'syncfs'));
        });
      });
    },
  };
}

function terminated(text: Buffer): Buffer {
  return Buffer.concat([text, Buffer.from([0])]);
}

function errorOf(errno: number, syscall: string): Error {
  const [code, message] = getSystemErrorMap().get(-errno) ?? [`E${errno}`, 'unknown error'];
  return Object.assign(new Error(`${code}: ${message}, ${syscall}`), { code, errno: -errno, syscall });
}
