/**
 * A part of the daemon that works for as long as it is wanted: an archiver, a watcher, the scheduler.
 *
 * The supervisor calls `run` again after a failure, so everything that one run opens it also closes.
 */
export interface Service {
  readonly name: string;
  /** Works until `stop`; then resolves. Rejects when it cannot go on: the supervisor starts it again after a pause. */
  run(): Promise<void>;
  /**
   * Ends `run` and resolves when nothing of it is left. What is under way gets `graceMs` milliseconds to finish and is dropped
   * cleanly after that; 0 drops it at once. A second call with less grace shortens the first.
   */
  stop(graceMs: number): Promise<void>;
}

/** How a service does. */
export interface ServiceState {
  readonly name: string;
  /** `waiting`: it failed and is started again after a pause. */
  readonly state: 'running' | 'waiting' | 'stopping';
  /** Failures in a row. */
  readonly failures: number;
  readonly lastError: unknown;
}
