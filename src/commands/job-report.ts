import { writeFileSync } from 'node:fs';
import { messageOf } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { OnProgress, Progress } from '../base/progress.ts';
import { renderJson } from '../report/values.ts';

/** What dr tells whoever started it as a Job: its result by `$DR_RESULT_FILE`, how far it is by its log. */

/** Kubernetes keeps no more of a termination message. */
const MOST_BYTES = 4096;
const PROGRESS_EVERY_MS = 5000;

/** Writes the document on one line, shortened until it fits. What cannot be written is logged: the work is done all the same. */
export function writeResult(path: string | undefined, document: object, log: Log): void {
  if (!path) return;
  try {
    writeFileSync(path, shortened(document));
  } catch (error) {
    log.warn({ path, reason: messageOf(error) }, 'the result cannot be written for the daemon that waits for it');
  }
}

/** Lists to their first entries, texts to their beginning, until it fits. */
export function shortened(document: object): string {
  // Secrets are taken out by renderJson, once.
  const plain: unknown = JSON.parse(renderJson(document));
  for (const [entries, characters] of [
    [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY],
    [20, 500],
    [5, 300],
    [2, 120],
    [1, 40],
  ] as const) {
    const text = JSON.stringify(plain, (_key, value: unknown) => {
      if (Array.isArray(value)) return value.slice(0, entries);
      return typeof value === 'string' && value.length > characters ? `${value.slice(0, characters)}…` : value;
    });
    if (Buffer.byteLength(text) <= MOST_BYTES) return text;
  }
  return JSON.stringify({ ok: false, error: { message: 'the result is too long for a termination message' } });
}

/** Logs how far it is every few seconds, for whoever reads the end of the log. */
export function loggedProgress(log: Log, now: () => number): OnProgress {
  let loggedMs = Number.NEGATIVE_INFINITY;
  return (progress: Progress) => {
    if (now() - loggedMs < PROGRESS_EVERY_MS) return;
    loggedMs = now();
    log.info({ progress }, 'progress');
  };
}
