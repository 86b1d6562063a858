import { AsyncLocalStorage } from 'node:async_hooks';

const activity = new AsyncLocalStorage<string>();

/**
 * Does something under a name (`backup`, `retention`, `wal`), which whatever it starts inherits: what it costs is counted under that name.
 * Nothing but counting depends on it.
 */
export function during<T>(name: string, work: () => T): T {
  return activity.run(name, work);
}

/** What is being done now, as far as it has a name; else `other`. */
export function currentActivity(): string {
  return activity.getStore() ?? 'other';
}
