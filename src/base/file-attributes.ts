import {
  chmodSync,
  chownSync,
  fchmodSync,
  fchownSync,
  futimesSync,
  lchownSync,
  lutimesSync,
  utimesSync,
} from 'node:fs';
import { codeOf, messageOf } from './errors.ts';
import { type FileRef, type LibC, libc, WITHOUT_LIBC } from './libc.ts';

/** One extended attribute. POSIX ACLs and file capabilities are such too. */
export interface ExtendedAttribute {
  /** As the system names it, with its namespace: `user.origin`, `system.posix_acl_access`, `security.capability`. */
  readonly name: Uint8Array;
  readonly value: Uint8Array;
}

/** What a restored file gets besides its content. */
export interface FileAttributes {
  /** Permission bits, 12 of them; a symbolic link has none. */
  readonly mode: number;
  /** Undefined: leave the owner as it is. */
  readonly owner: { readonly uid: number; readonly gid: number } | undefined;
  /** Nanoseconds since 1970. */
  readonly mtimeNs: bigint;
  readonly extended: readonly ExtendedAttribute[];
}

/** An extended attribute that could not be set, and why. */
export interface UnsetAttribute {
  readonly name: string;
  readonly reason: string;
}

const ACL_PREFIX = 'system.posix_acl_';

/**
 * The extended attributes of an open file, or of what stands at a path (a symbolic link itself, not what it points to), sorted by
 * name. Empty where the file system has none. Throws what the system says, for example `ENOENT`.
 */
export function readExtendedAttributes(of: FileRef, calls: LibC): ExtendedAttribute[] {
  let names: Buffer[];
  try {
    names = calls.listAttributes(of);
  } catch (error) {
    if (isUnsupported(error)) return [];
    throw error;
  }
  const found: ExtendedAttribute[] = [];
  for (const name of names.sort(Buffer.compare)) {
    const value = calls.getAttribute(of, name);
    if (value) found.push({ name, value });
  }
  return found;
}

/**
 * Gives a restored file (open), directory or symbolic link (by its path) its owner, mode, extended attributes and time. Throws when
 * one of the usual ones cannot be set; extended ones that cannot (another file system, no right to it) are returned.
 */
export function setFileAttributes(
  of: FileRef,
  kind: 'file' | 'directory' | 'symlink',
  attributes: FileAttributes,
  calls: LibC | undefined = libc(),
): UnsetAttribute[] {
  const { owner, mode, mtimeNs, extended } = attributes;
  // The owner first: changing it takes away set-user-id bits and capabilities.
  if (owner) setOwner(of, kind, owner);
  const isAcl = ({ name }: ExtendedAttribute) => textOf(name).startsWith(ACL_PREFIX);
  const unset: UnsetAttribute[] = [];
  // User attributes need the right to write, which the mode may take; ACLs come after the mode, which would change their mask.
  for (const attribute of extended) if (!isAcl(attribute)) setExtended(of, attribute, calls, unset);
  if (typeof of === 'number') fchmodSync(of, mode);
  else if (kind !== 'symlink') chmodSync(of, mode);
  for (const attribute of extended) if (isAcl(attribute)) setExtended(of, attribute, calls, unset);
  setModified(of, kind, mtimeNs, calls);
  return unset;
}

/** Takes away the ACLs that a new directory has inherited from the one it is in, so that nothing below it inherits them. */
export function removeInheritedAcls(path: Buffer, calls: LibC | undefined = libc()): void {
  if (!calls) return;
  for (const { name } of readExtendedAttributes(path, calls)) {
    if (textOf(name).startsWith(ACL_PREFIX)) calls.removeAttribute(path, Buffer.from(name));
  }
}

function setOwner(
  of: FileRef,
  kind: 'file' | 'directory' | 'symlink',
  { uid, gid }: { uid: number; gid: number },
): void {
  if (typeof of === 'number') fchownSync(of, uid, gid);
  else if (kind === 'symlink') lchownSync(of, uid, gid);
  else chownSync(of, uid, gid);
}

function setExtended(
  of: FileRef,
  { name, value }: ExtendedAttribute,
  calls: LibC | undefined,
  unset: UnsetAttribute[],
): void {
  const text = textOf(name);
  if (!calls) {
    unset.push({ name: text, reason: WITHOUT_LIBC });
    return;
  }
  try {
    calls.setAttribute(of, Buffer.from(name), value);
  } catch (error) {
    const code = codeOf(error);
    // ENOSPC too: ext4 says so of a value that is too large for it (4 KiB), whatever room the disk has.
    if (
      code === undefined ||
      !/^(ENOTSUP|EOPNOTSUPP|EPERM|EACCES|EINVAL|E2BIG|ERANGE|ENODATA|ENOSPC|EDQUOT)$/.test(code)
    )
      throw error;
    const reason = isUnsupported(error) ? 'the file system there does not support it' : messageOf(error);
    unset.push({ name: text, reason });
  }
}

/** With the C library exact to the nanosecond; without it as near as a double comes: within 250 ns. */
function setModified(of: FileRef, kind: string, mtimeNs: bigint, calls: LibC | undefined): void {
  if (calls) {
    calls.setTimes(of, mtimeNs);
    return;
  }
  const seconds = Number(mtimeNs) / 1e9;
  if (typeof of === 'number') futimesSync(of, seconds, seconds);
  else if (kind === 'symlink') lutimesSync(of, seconds, seconds);
  else utimesSync(of, seconds, seconds);
}

function isUnsupported(error: unknown): boolean {
  const code = codeOf(error);
  return code === 'ENOTSUP' || code === 'EOPNOTSUPP';
}

function textOf(name: Uint8Array): string {
  return Buffer.from(name.buffer, name.byteOffset, name.byteLength).toString('utf8');
}
