import { formatDuration } from '../src/base/units.ts';

export interface NarratorOutput {
  readonly isTTY?: boolean;
  readonly columns?: number;
  write(text: string): unknown;
}

/** Without a terminal, a step that takes long says so every so many milliseconds. */
const REMIND_MS = 10_000;
const FRAME_MS = 120;
const frames = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];

/** The one voice of the demo: a line for each step, live on a terminal, plain in a pipe. */
export class Narrator {
  readonly #out: NarratorOutput;
  readonly #live: boolean;
  readonly #colour: boolean;
  #current: { readonly title: string; readonly begun: number; detail: string } | undefined;
  #timer: NodeJS.Timeout | undefined;
  #frame = 0;

  constructor(out: NarratorOutput, env: NodeJS.ProcessEnv) {
    this.#out = out;
    this.#live = out.isTTY === true && env['TERM'] !== 'dumb';
    this.#colour = out.isTTY === true && !env['NO_COLOR'];
  }

  /** A heading. */
  chapter(title: string): void {
    this.#erase();
    this.#out.write(`\n${this.bold(title)}\n`);
  }

  /** A line of its own. */
  say(text: string): void {
    this.#erase();
    this.#out.write(`${text}\n`);
  }

  /**
   * Does `work` and says what became of it and how long it took. `work` gives the sentence, or calls `detail` to
   * say what it is at.
   */
  async step<T>(
    title: string,
    work: (detail: (text: string) => void) => Promise<T>,
    told: (result: T) => string,
  ): Promise<T> {
    const current = { title, begun: performance.now(), detail: '' };
    this.#current = current;
    this.#timer = setInterval(() => this.#show(), this.#live ? FRAME_MS : REMIND_MS);
    this.#show();
    try {
      const result = await work((text) => {
        current.detail = text;
      });
      const took = formatDuration(performance.now() - current.begun);
      this.#end();
      this.say(`  ${this.green('✓')} ${title}: ${told(result)} ${this.dim(`(${took})`)}`);
      return result;
    } catch (error) {
      this.#end();
      this.say(`  ${this.red('✗')} ${title}`);
      throw error;
    }
  }

  bold(text: string): string {
    return this.#colour ? `\x1b[1m${text}\x1b[22m` : text;
  }

  dim(text: string): string {
    return this.#colour ? `\x1b[2m${text}\x1b[22m` : text;
  }

  green(text: string): string {
    return this.#colour ? `\x1b[32m${text}\x1b[39m` : text;
  }

  red(text: string): string {
    return this.#colour ? `\x1b[31m${text}\x1b[39m` : text;
  }

  #show(): void {
    const current = this.#current;
    if (current === undefined) return;
    const ms = performance.now() - current.begun;
    const detail = current.detail === '' ? '' : `: ${current.detail}`;
    if (!this.#live) {
      if (ms >= REMIND_MS - 100) this.#out.write(`    … ${current.title}${detail} (${formatDuration(ms)})\n`);
      return;
    }
    this.#frame = (this.#frame + 1) % frames.length;
    const text = `  ${frames[this.#frame]} ${current.title}${detail} ${formatDuration(ms)}`;
    // A line that wraps could not be taken back.
    const width = Math.max(20, (this.#out.columns || 80) - 1);
    this.#out.write(`\r\x1b[2K${text.length > width ? `${text.slice(0, width - 1)}…` : text}`);
  }

  #end(): void {
    clearInterval(this.#timer);
    this.#erase();
    this.#current = undefined;
  }

  #erase(): void {
    if (this.#live && this.#current !== undefined) this.#out.write('\r\x1b[2K');
  }
}
