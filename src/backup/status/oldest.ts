import type { ObjectStore } from '../../vault/store.ts';
import { oldestBackupId } from '../catalog.ts';

/** The oldest backups, looked for only when something is judged by them: once most things were done, nothing is. */
export class OldestBackups {
  readonly #resources: readonly string[];
  readonly #signal: AbortSignal | undefined;
  readonly #found = new Map<string, Promise<string | undefined>>();

  constructor(resources: readonly string[], signal: AbortSignal | undefined) {
    this.#resources = resources;
    this.#signal = signal;
  }

  /** The id of the oldest backup of a resource, or of all, in these vaults; a vault that does not answer has no say. */
  async in(stores: readonly ObjectStore[], resource?: string): Promise<string | undefined> {
    const names = resource === undefined ? this.#resources : [resource];
    const ids = await Promise.all(stores.flatMap((store) => names.map((name) => this.#look(store, name))));
    return ids.flatMap((id) => id ?? []).sort()[0];
  }

  #look(store: ObjectStore, resource: string): Promise<string | undefined> {
    const name = `${store.name}/${resource}`;
    const looking = this.#found.get(name) ?? this.#ask(store, resource);
    this.#found.set(name, looking);
    return looking;
  }

  async #ask(store: ObjectStore, resource: string): Promise<string | undefined> {
    try {
      return await oldestBackupId(store, resource, this.#signal);
    } catch (error) {
      if (this.#signal?.aborted) throw error;
      return undefined;
    }
  }
}
