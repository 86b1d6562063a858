import type { OnProgress, Progress } from '../base/progress.ts';
import { formatBytes, formatDuration } from '../base/units.ts';
import { printable, width } from '../report/table.ts';
import { formatRate } from '../report/values.ts';

/** Standard error, as far as it is written to here. */
export interface TerminalOutput {
  write(text: string): unknown;
  readonly isTTY?: boolean | undefined;
  readonly columns?: number | undefined;
}

export interface TerminalOptions {
  readonly output: TerminalOutput;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly now: () => number;
  /** False = no progress at all (--json, --no-progress). */
  readonly progress: boolean;
}

interface Task {
  readonly startedMs: number;
  latest: Progress;
  /** Moments of the last 10 s and what was done by then: the rate follows what happens now, not long ago. */
  samples: { ms: number; done: number }[];
  plainMs: number;
}

const showAfterMs = 2000;
const redrawMs = 100;
const plainEveryMs = 10_000;
const sampleEveryMs = 100;
const rateWindowMs = 10_000;
const maxLines = 8;

/**
 * What a person sees while waiting. On a terminal, one line per task that has been running for 2 s, redrawn in place;
 * elsewhere a plain line per task at most every 10 s. Lines that must stay (warnings, results of a task) are written
 * above the moving ones.
 */
export class Terminal {
  readonly #options: TerminalOptions;
  readonly #moving: boolean;
  readonly #bold: (text: string) => string;
  readonly #tasks = new Map<string, Task>();
  #drawn = 0;
  #drawnMs = Number.NEGATIVE_INFINITY;

  constructor(options: TerminalOptions) {
    this.#options = options;
    const dumb = options.env['TERM'] === 'dumb';
    this.#moving = options.output.isTTY === true && !dumb;
    // https://no-color.org: any value that is not empty.
    const colours = this.#moving && !options.env['NO_COLOR'];
    this.#bold = (text) => (colours ? `\u001b[1m${text}\u001b[22m` : text);
  }

  readonly onProgress: OnProgress = (progress) => {
    if (!this.#options.progress) return;
    const nowMs = this.#options.now();
    const task = this.#record(progress, nowMs);
    const finished = progress.total > 0 && progress.done >= progress.total;
    if (finished) this.#tasks.delete(progress.task);
    if (nowMs - task.startedMs < showAfterMs) return;

    if (finished) this.line(summary(task, nowMs));
    else if (this.#moving) {
      if (nowMs - this.#drawnMs >= redrawMs) this.#redraw(nowMs);
    } else if (nowMs - task.plainMs >= plainEveryMs) {
      task.plainMs = nowMs;
      this.#options.output.write(`${describe(task, nowMs)}\n`);
    }
  };

  /** A line that stays. */
  line(text: string): void {
    this.#options.output.write(`${this.#erase()}${text}\n`);
    if (this.#moving && this.#tasks.size > 0) this.#redraw(this.#options.now());
  }

  /** Takes the moving lines away: nothing half drawn stays behind. */
  close(): void {
    this.#tasks.clear();
    const erase = this.#erase();
    if (erase !== '') this.#options.output.write(erase);
  }

  #record(progress: Progress, nowMs: number): Task {
    const known = this.#tasks.get(progress.task);
    const again = known !== undefined && progress.done < known.latest.done;
    const task = known && !again ? known : { startedMs: nowMs, latest: progress, samples: [], plainMs: nowMs };
    task.latest = progress;
    // Progress comes as often as a hundred thousand times in the window.
    if (nowMs - (task.samples.at(-1)?.ms ?? Number.NEGATIVE_INFINITY) >= sampleEveryMs) {
      task.samples.push({ ms: nowMs, done: progress.done });
    }
    while (task.samples.length > 2 && nowMs - (task.samples[0]?.ms ?? nowMs) > rateWindowMs) task.samples.shift();
    this.#tasks.set(progress.task, task);
    return task;
  }

  #redraw(nowMs: number): void {
    const columns = Math.max(20, (this.#options.output.columns ?? 80) - 1);
    const due = [...this.#tasks.values()].filter((task) => nowMs - task.startedMs >= showAfterMs);
    const lines = due.slice(0, maxLines).map((task) => {
      const text = cut(describe(task, nowMs, true), columns);
      const name = printable(task.latest.task);
      return text.startsWith(name) ? this.#bold(name) + text.slice(name.length) : text;
    });
    if (due.length > maxLines) lines.push(`… and ${due.length - maxLines} more`);
    this.#options.output.write(this.#erase() + lines.map((line) => `${line}\n`).join(''));
    this.#drawn = lines.length;
    this.#drawnMs = nowMs;
  }

  #erase(): string {
    const lines = this.#drawn;
    this.#drawn = 0;
    return lines === 0 ? '' : `\u001b[${lines}A\r\u001b[0J`;
  }
}

/** `backup orders  [=====>    ] 45 %  1.2 GiB of 2.7 GiB  88 MiB/s  17 s left  base/16384/1234` */
function describe(task: Task, nowMs: number, bar = false): string {
  const { done, total, unit, detail } = task.latest;
  const first = task.samples[0] ?? { ms: nowMs, done };
  const overMs = nowMs - first.ms;
  const perMs = overMs > 0 ? (done - first.done) / overMs : 0;
  const parts = [printable(task.latest.task)];
  if (total > 0) {
    const share = Math.min(1, done / total);
    parts.push(`${bar ? `${drawBar(share)} ` : ''}${Math.floor(share * 100)} %`);
    parts.push(`${amount(done, unit)} of ${amount(total, unit)}`);
  } else parts.push(amount(done, unit));
  if (perMs > 0 && unit !== 'seconds')
    parts.push(unit === 'bytes' ? formatRate(done - first.done, overMs) : `${(perMs * 1000).toFixed(1)}/s`);
  if (perMs > 0 && total > done) parts.push(`${formatDuration(roundUp((total - done) / perMs))} left`);
  if (detail) parts.push(printable(detail));
  return parts.join('  ');
}

function summary(task: Task, nowMs: number): string {
  const { done, unit } = task.latest;
  const tookMs = nowMs - task.startedMs;
  const rate = unit === 'bytes' ? ` (${formatRate(done, tookMs)})` : '';
  return `${printable(task.latest.task)}: ${unit === 'seconds' ? '' : `${amount(done, unit)} in `}${formatDuration(tookMs)}${rate}`;
}

function amount(value: number, unit: Progress['unit']): string {
  if (unit === 'bytes') return formatBytes(value);
  return unit === 'seconds' ? formatDuration(value * 1000) : `${value} objects`;
}

/** Milliseconds, to the next second: a remainder is an estimate. */
function roundUp(ms: number): number {
  return Math.ceil(ms / 1000) * 1000;
}

function drawBar(share: number): string {
  const cells = 20;
  const full = Math.floor(share * cells);
  return `[${'='.repeat(full)}${full < cells ? '>' : ''}${' '.repeat(Math.max(0, cells - full - 1))}]`;
}

function cut(text: string, columns: number): string {
  if (width(text) <= columns) return text;
  let short = '';
  for (const character of text) {
    if (width(short + character) > columns - 1) break;
    short += character;
  }
  return `${short}…`;
}
