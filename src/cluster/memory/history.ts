import type { ClusterObject } from '../contract.ts';
import { StatusError } from '../errors.ts';

/** One stored change. */
export interface Change {
  readonly revision: number;
  /** `apps/deployments`. */
  readonly table: string;
  /** Absent for an object that is new. */
  readonly before?: ClusterObject | undefined;
  /** Absent for an object that is gone. */
  readonly after?: ClusterObject | undefined;
}

export interface Watcher {
  /** One change; not called for other tables. */
  onChange(change: Change): void;
  /** Everything up to this revision was told. */
  onBookmark(revision: number): void;
}

/** What happened, for watches and for the pages of lists; forgets when it is told to, as a server does after some minutes. */
export class History {
  revision = 1;
  /** Revisions up to this one are forgotten. */
  #forgotten = 0;
  #changes: Change[] = [];
  readonly #watchers = new Map<Watcher, string>();
  /** Tables in which something has happened: like a real server, this one has no bookmarks for others. */
  readonly #moved = new Set<string>();
  readonly #lists = new Map<string, { readonly revision: number; readonly rest: readonly ClusterObject[] }>();
  #listCount = 0;

  add(change: Omit<Change, 'revision'>): void {
    const stored = { ...change, revision: this.revision };
    this.#changes.push(stored);
    this.#moved.add(change.table);
    for (const [watcher, table] of this.#watchers) if (table === change.table) watcher.onChange(stored);
  }

  /** Tells what came after `from`, and from then on everything, until the function that it returns is called. */
  watch(table: string, from: number, watcher: Watcher): () => void {
    if (from < this.#forgotten) throw expired(`too old resource version: ${from} (${this.#forgotten})`);
    for (const change of this.#changes) if (change.revision > from && change.table === table) watcher.onChange(change);
    this.#watchers.set(watcher, table);
    return () => this.#watchers.delete(watcher);
  }

  /** Keeps the rest of a list for its next page. */
  keepRest(revision: number, rest: readonly ClusterObject[]): string {
    this.#listCount++;
    const token = Buffer.from(JSON.stringify({ list: this.#listCount, revision })).toString('base64url');
    this.#lists.set(token, { revision, rest });
    return token;
  }

  rest(token: string): { readonly revision: number; readonly rest: readonly ClusterObject[] } {
    const list = this.#lists.get(token);
    if (list && list.revision >= this.#forgotten) return list;
    throw expired('The provided continue parameter is too old to display a consistent list result.');
  }

  /** Forgets all changes and pages so far: older watches and lists have to begin anew. */
  forget(): void {
    this.revision++;
    this.#forgotten = this.revision;
    this.#changes = [];
    this.#lists.clear();
  }

  bookmark(): void {
    for (const [watcher, table] of this.#watchers) if (this.#moved.has(table)) watcher.onBookmark(this.revision);
  }
}

function expired(message: string): StatusError {
  return new StatusError({ code: 410, reason: 'Expired', message });
}
