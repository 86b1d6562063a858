/** What one side adds and the other takes in order; ends once `end` was called and all was taken. */
export class EventQueue<T> implements AsyncIterable<T> {
  readonly #events: T[] = [];
  #isOver = false;
  #wake: () => void = () => {};

  add(event: T): void {
    this.#events.push(event);
    this.#wake();
  }

  end(): void {
    this.#isOver = true;
    this.#wake();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T> {
    for (;;) {
      const next = this.#events.shift();
      if (next !== undefined) yield next;
      else if (this.#isOver) return;
      else
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
    }
  }
}
