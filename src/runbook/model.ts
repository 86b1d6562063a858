import type { Collection, RunMode, StepKind } from '../steps/contract.ts';

/** The stages of every runbook, in this order. A runbook may leave out some of them. */
export const stageNames = ['assess', 'activate', 'restore', 'validate', 'redirect', 'stabilize'] as const;
export type StageName = (typeof stageNames)[number];

/** What happens to the run when a step has failed for good. `undo`: everything done so far is taken back, newest first. */
export type OnFailure = 'stop' | 'continue' | 'undo';

export interface Approval {
  /** What the person is asked. */
  readonly prompt: string;
  /** Who may answer; empty = anybody with access to the vault. */
  readonly by: readonly string[];
  /** How long the run waits, milliseconds. */
  readonly timeoutMs: number;
}

/** One step of a runbook after loading: everything in it is known to exist. */
export interface StepSpec {
  readonly id: string;
  readonly stage: StageName;
  readonly title: string;
  readonly kind: StepKind;
  /** Parameter templates: values that may hold `${{ … }}` references. */
  readonly with: Readonly<Record<string, unknown>>;
  readonly forEach: Collection | undefined;
  /** Modes in which it takes part: those of the runbook, of the step and of its kind. */
  readonly modes: readonly RunMode[];
  /** Milliseconds for one attempt. */
  readonly timeoutMs: number;
  /** Further attempts after a failure that may pass by itself. */
  readonly retries: number;
  readonly approval: Approval | undefined;
  readonly onFailure: OnFailure;
  /** Line in the file, from 1. */
  readonly line: number;
}

/** Steps that run side by side; groups run one after the other. */
export type StepGroup = readonly StepSpec[];

export interface Runbook {
  readonly name: string;
  readonly summary: string;
  readonly modes: readonly RunMode[];
  readonly stages: ReadonlyArray<{ readonly name: StageName; readonly groups: readonly StepGroup[] }>;
  /** Where it was read, and its text: the journal keeps the text, so that a resumed run follows what it began with. */
  readonly source: { readonly path: string; readonly text: string };
}

/** One execution of a step: a step with `forEach` has one for every member. */
export interface StepInstance {
  /** `database-restore` or `database-restore[orders]`. */
  readonly id: string;
  readonly spec: StepSpec;
  readonly each: string | undefined;
  /** Number of its group in the whole run, from 0. */
  readonly group: number;
  /** Why it does not take part in this run. */
  readonly skip: string | undefined;
}

/** All executions of a runbook in one mode, in order. `members` gives the names of each collection at the recovery site. */
export function instancesOf(
  runbook: Runbook,
  mode: RunMode,
  members: Readonly<Record<Collection, readonly string[]>>,
): StepInstance[] {
  const instances: StepInstance[] = [];
  let group = 0;
  for (const stage of runbook.stages) {
    for (const steps of stage.groups) {
      for (const spec of steps) {
        const skip = spec.modes.includes(mode) ? undefined : `not part of a ${mode}`;
        if (spec.forEach === undefined) instances.push({ id: spec.id, spec, each: undefined, group, skip });
        for (const each of spec.forEach === undefined ? [] : members[spec.forEach])
          instances.push({ id: `${spec.id}[${each}]`, spec, each, group, skip });
      }
      group++;
    }
  }
  return instances;
}

/** The lease that keeps two executors apart. A drill must never stand in the way of the real thing, so it has its own. */
export function leaseOf(mode: RunMode): string {
  return mode === 'drill' ? 'drill' : 'failover';
}
