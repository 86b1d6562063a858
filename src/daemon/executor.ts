import type { DrError } from '../base/errors.ts';

/** Where the daemon's backups and verifications are done. */

/** One piece of work: what a person would do with `dr backup orders` or `dr verify orders`. */
export interface Task {
  readonly verb: 'backup' | 'verify';
  readonly resource: string;
  /**
   * Which of the many times, milliseconds since 1970: the slot of its schedule, or when somebody asked. Work that was begun since then counts
   * as this one, whoever did it.
   */
  readonly occurrenceMs: number;
  /** Arguments of the command besides verb, resource and occurrence. */
  readonly args: readonly string[];
  /** False when nobody wants it any more: then it is not only left but ended. */
  wanted(): boolean;
  /** Facts for the log from what the command says (`result` of its JSON document); throws when that is a failure. */
  told(result: unknown): object;
  /** Does it in this process; gives facts for the log. */
  here(signal: AbortSignal): Promise<object>;
}

/** Progress of work elsewhere, for people. */
export interface RunningTask {
  readonly verb: Task['verb'];
  readonly resource: string;
  /** `Job dr/dr-backup-orders-…`. */
  readonly job: string;
  /** The pod whose log tells more; undefined before there is one. */
  readonly pod: string | undefined;
  /** What it waits for, or how far it is. */
  readonly detail: string | undefined;
}

/** Jobs of the cluster, counted since the start. */
export interface ClusterJobCounts {
  readonly running: Readonly<Record<string, number>>;
  readonly ended: ReadonlyArray<{
    readonly verb: string;
    readonly outcome: 'succeeded' | 'failed' | 'not-started';
    readonly number: number;
  }>;
}

export interface Executor {
  /** How many backups, and verifications, run at once. */
  readonly parallel: number;
  /** Does it; throws `lease-held` when another process does. */
  run(task: Task, signal: AbortSignal): Promise<object>;
  /** Work that others left running is looked after too; called when this replica begins to lead. */
  adopt(): void;
  /** The site is active no more: backups that run elsewhere are ended, whoever began them. */
  endBackups(): void;
  /** Lets go of what runs elsewhere, and leaves it running: another replica, or the next start, takes it up. */
  letGo(reason: DrError): void;
  running(): readonly RunningTask[];
  counts(): ClusterJobCounts | undefined;
}

/** Everything in this process, one at a time so that memory stays bounded. */
export const localExecutor: Executor = {
  parallel: 1,
  run: async (task, signal) => await task.here(signal),
  adopt: () => {},
  endBackups: () => {},
  letGo: () => {},
  running: () => [],
  counts: () => undefined,
};
