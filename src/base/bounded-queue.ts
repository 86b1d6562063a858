/**
 * What one task makes and another one uses, in order, with a limit on what waits between them. Either side can end it: the maker with
 * `close` or `fail`, the user with `cancel`.
 */
export class BoundedQueue<T> {
  readonly #limit: number;
  #items: T[] = [];
  #weight = 0;
  #closed = false;
  #cancelled = false;
  #failure: { readonly error: unknown } | undefined;
  #wakeMaker: (() => void) | undefined;
  #wakeUser: (() => void) | undefined;

  /** `limit`: `push` waits while the weights of all items waiting add up to this or more. */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Adds an item; resolves when there is room for another one, with false when nobody wants any more. */
  async push(item: T, weight = 1): Promise<boolean> {
    this.#items.push(item);
    this.#weight += weight;
    this.#wakeUser?.();
    while (this.#weight >= this.#limit && !this.#cancelled) {
      await new Promise<void>((resolve) => {
        this.#wakeMaker = resolve;
      });
    }
    return !this.#cancelled;
  }

  /** No more items come. */
  close(): void {
    this.#closed = true;
    this.#wakeUser?.();
  }

  /** The user gets this error once it has used what is there. */
  fail(error: unknown): void {
    this.#failure = { error };
    this.close();
  }

  /** No more items are wanted: `push` answers false. */
  cancel(): void {
    this.#cancelled = true;
    this.#wakeMaker?.();
  }

  /** An item has been used: room for others, of the weight that it was pushed with. */
  release(weight: number): void {
    this.#weight -= weight;
    if (this.#weight < this.#limit) this.#wakeMaker?.();
  }

  /** All items in order, as many at once as there are; the user calls `release` for each. */
  async *batches(): AsyncGenerator<T[], void, undefined> {
    for (;;) {
      const items = this.#items;
      this.#items = [];
      if (items.length > 0) yield items;
      else if (this.#failure) throw this.#failure.error;
      else if (this.#closed) return;
      else {
        await new Promise<void>((resolve) => {
          this.#wakeUser = resolve;
        });
      }
    }
  }
}
