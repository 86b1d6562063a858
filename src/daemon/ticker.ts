import { createTask } from 'node-cron';
import type { Log } from '../base/log.ts';

/** Calls back once a second. */
export interface Ticker {
  start(onTick: () => void): void;
  stop(): void;
}

/**
 * The ticks of node-cron. Which job is due is asked of `config/cadence.ts` at every tick, because cadences may be intervals and have
 * time zones and jitter of their own; so a tick that comes late, after a pause of the machine or a change of its clock, loses nothing.
 */
export function cronTicker(name: string, log: Log): Ticker {
  let task: ReturnType<typeof createTask> | undefined;
  // node-cron would write to the console.
  const logger = {
    info: () => {},
    warn: () => {},
    error: (error: string | Error) => log.error({ error }, 'a tick of the scheduler failed'),
    debug: () => {},
  };
  return {
    start: (onTick) => {
      task = createTask('* * * * * *', onTick, { name, suppressMissedWarning: true, logger });
      void task.start();
    },
    stop: () => {
      void task?.destroy();
      task = undefined;
    },
  };
}
