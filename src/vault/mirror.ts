import { DrError, isAbort, messageOf } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { type Body, bodyBytes, type ObjectStore } from './store.ts';

/** A vault that dropped out of one operation, and why. */
export interface LostVault {
  readonly vault: string;
  readonly reason: string;
  readonly error: unknown;
}

/**
 * One operation (a backup, a record) written to all vaults at once from the same buffers. A vault that fails is left out of the
 * rest of the operation, so that it never holds half of it as if it were whole; the others go on.
 */
export class Mirror {
  readonly #alive: Set<ObjectStore>;
  readonly #lost: LostVault[];
  readonly #log: Log;

  /** `lost`: vaults that were left out before it began. */
  constructor(stores: readonly ObjectStore[], log: Log, lost: readonly LostVault[] = []) {
    this.#alive = new Set(stores);
    this.#lost = [...lost];
    this.#log = log;
  }

  /** Vaults that hold everything written so far. */
  get complete(): ObjectStore[] {
    return [...this.#alive];
  }

  get lost(): readonly LostVault[] {
    return this.#lost;
  }

  /**
   * Creates the object in every vault that is still complete. Different content under the same name is a `conflict` of that vault.
   * Throws when no vault is left. `sha256`: of the body, where the caller has it.
   */
  async create(key: string, body: Body, signal?: AbortSignal, sha256?: Uint8Array): Promise<void> {
    await Promise.all(
      [...this.#alive].map(async (store) => {
        try {
          const exists = (await store.create(key, body, { signal, sha256 })) === 'exists';
          // The same content is a success: a repair may have brought it here from another vault a moment ago.
          if (exists && !(await store.read(key, undefined, { signal })).equals(bodyBytes(body))) {
            throw new DrError('conflict', 'an object of this name is already there, with other content', {
              where: `${store.location}/${key}`,
              next: 'Another dr writes to this vault under the same identity: find and stop it.',
            });
          }
        } catch (error) {
          if (signal?.aborted || isAbort(error)) throw error;
          this.#drop(store, error);
        }
      }),
    );
    this.#requireOne();
  }

  /**
   * Makes sure that what earlier operations have stored, and this one uses again, stays locked as long as what it stores itself; a name
   * that ends in `/` means everything below. A vault where it is not there drops out. That these credentials may not make locks longer is
   * no reason to go without a backup: it is said, here and by `dr doctor`.
   */
  async protect(keys: readonly string[], signal?: AbortSignal): Promise<void> {
    if (keys.length === 0) return;
    await Promise.all(
      [...this.#alive].map(async (store) => {
        try {
          await store.locks?.extend(keys, { signal });
        } catch (error) {
          if (signal?.aborted || isAbort(error)) throw error;
          if (!(error instanceof DrError && error.kind === 'denied')) this.#drop(store, error);
          else this.#log.warn({ vault: store.name, error }, 'the locks of what is used again could not be made longer');
        }
      }),
    );
    this.#requireOne();
  }

  /**
   * Looks at something in every vault that is still complete; one that does not answer is left out of the rest of the operation. What
   * `look` returns for a vault is thrown. Throws when no vault is left.
   */
  async check(look: (store: ObjectStore) => Promise<unknown>, signal?: AbortSignal): Promise<void> {
    const wrong = await Promise.all(
      [...this.#alive].map(async (store) => {
        try {
          return await look(store);
        } catch (error) {
          if (signal?.aborted || isAbort(error)) throw error;
          this.#drop(store, error);
          return undefined;
        }
      }),
    );
    const [first] = wrong.filter((reason) => reason !== undefined);
    if (first !== undefined) throw first;
    this.#requireOne();
  }

  /** Leaves a vault out of the rest of this operation. */
  #drop(store: ObjectStore, error: unknown): void {
    if (!this.#alive.delete(store)) return;
    this.#lost.push({ vault: store.name, reason: messageOf(error), error });
    this.#log.warn({ vault: store.name, error }, 'vault left out of this operation; the others go on');
  }

  #requireOne(): void {
    if (this.#alive.size > 0) return;
    const [only] = this.#lost;
    if (this.#lost.length === 1 && only) throw only.error;
    const denied = this.#lost.every(({ error }) => error instanceof DrError && error.kind === 'denied');
    throw new DrError(denied ? 'denied' : 'unreachable', 'no vault could be written', {
      where: this.#lost.map(({ vault, reason }) => `${vault}: ${reason}`).join('; '),
      next: 'Run `dr doctor` to see what each vault refuses.',
      cause: new AggregateError(this.#lost.map(({ error }) => error)),
      retryable: !denied,
    });
  }
}
