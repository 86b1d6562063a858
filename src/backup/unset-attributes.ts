import type { UnsetAttribute } from '../base/file-attributes.ts';

/** What of a backup could not be set where it was restored, one line for each kind, however many entries it concerns. */
export class UnsetAttributes {
  readonly #found = new Map<string, { readonly attribute: UnsetAttribute; readonly first: string; entries: number }>();

  /** `path`: of the entry, for people. */
  add(path: string, unset: readonly UnsetAttribute[]): void {
    for (const attribute of unset) {
      const key = `${attribute.name}\0${attribute.reason}`;
      const known = this.#found.get(key);
      if (known) known.entries++;
      else this.#found.set(key, { attribute, first: path, entries: 1 });
    }
  }

  /** `extended attribute user.origin of 3 entries: <reason> (the first: docs/a.txt)`, by name. */
  get lines(): string[] {
    const found = [...this.#found.values()].sort((a, b) => a.attribute.name.localeCompare(b.attribute.name));
    return found.map(
      ({ attribute: { name, reason }, first, entries }) =>
        `${name} of ${entries === 1 ? first : `${entries} entries, the first ${first}`}: ${reason}`,
    );
  }
}
