import type { StageName } from './model.ts';

/**
 * How an hour to recover is best spent, in minutes: 5 to assess and decide, 5 to activate, 35 to restore, 5 to validate, 5 to redirect,
 * and 5 that belong to nobody. Other objectives are divided in the same proportion. Watching (stabilize) does not count.
 */
const minutesOfAnHour: Readonly<Record<StageName, number | undefined>> = {
  assess: 5,
  activate: 5,
  restore: 35,
  validate: 5,
  redirect: 5,
  stabilize: undefined,
};

/** The part of the objective (milliseconds) that a stage may take, milliseconds; undefined for a stage that does not count. */
export function stageBudgetMs(stage: StageName, rtoMs: number): number | undefined {
  const minutes = minutesOfAnHour[stage];
  return minutes === undefined ? undefined : Math.round((rtoMs * minutes) / 60);
}
