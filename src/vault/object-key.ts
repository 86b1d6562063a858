import { DrError } from '../base/errors.ts';

const segment = /^[A-Za-z0-9_=-][A-Za-z0-9._=-]{0,199}$/;

/** True when every store can hold an object of this name (the rule is in `store.ts`). */
export function isObjectKey(key: string): boolean {
  return key.length <= 512 && key.split('/').every((part) => segment.test(part));
}

/** Throws `refused` unless `key` may name an object; keys read from a vault are as little trusted as any other input. */
export function requireObjectKey(key: string, location: string): void {
  if (isObjectKey(key)) return;
  throw new DrError('refused', `${JSON.stringify(key.slice(0, 80))} cannot be the name of an object in a vault`, {
    where: location,
    next: 'If it comes from a manifest or an index, that object was damaged or tampered with: use another backup or vault.',
  });
}

/** Throws `refused` unless keys can begin with `prefix`: whole segments, then perhaps the beginning of one. */
export function requireKeyPrefix(prefix: string, location: string): void {
  const parts = prefix.split('/');
  const last = parts.pop() ?? '';
  if (parts.every((part) => segment.test(part)) && (last === '' || segment.test(last))) return;
  throw new DrError('refused', `${JSON.stringify(prefix.slice(0, 80))} cannot begin the name of an object in a vault`, {
    where: location,
  });
}

/** Throws `refused` unless `prefix` is a folder: empty, or whole segments that end in `/`. */
export function requireFolder(prefix: string, location: string): void {
  requireKeyPrefix(prefix, location);
  if (prefix === '' || prefix.endsWith('/')) return;
  throw new DrError('refused', `a folder must end in "/": ${JSON.stringify(prefix.slice(0, 80))}`, { where: location });
}

/** Byte order of two keys (which are ASCII, where the order of code units is the same). */
export function compareKeys(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
