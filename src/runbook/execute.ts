import type { Clock } from '../base/clock.ts';
import { DrError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { Progress } from '../base/progress.ts';
import { backoffMs } from '../base/retry.ts';
import type { RunFacts, StepContext } from '../steps/contract.ts';
import type { World } from '../steps/ports.ts';
import type { Lease } from '../vault/lease.ts';
import { awaitApproval } from './approval.ts';
import { within } from './deadline.ts';
import type { StoredError } from './events.ts';
import type { Journal } from './journal.ts';
import type { StepInstance, StepSpec } from './model.ts';
import { resolveParams, resolveText, type Scope } from './reference.ts';
import { isSettled, needsUndo, type StepState } from './state.ts';
import { storeError } from './stored-error.ts';

/** How long a step may take to stop once its time is up or the run is interrupted, milliseconds. */
const STOP_GRACE_MS = 30_000;

export interface Execution {
  readonly journal: Journal;
  readonly instances: readonly StepInstance[];
  readonly world: World;
  readonly lease: Lease;
  readonly clock: Clock;
  readonly log: Log;
  /** Ctrl-C, or the end of the process. */
  readonly signal: AbortSignal;
  onProgress(step: string, progress: Progress): void;
}

/** How far a run came: to its end, to a step that failed for good, or until somebody interrupted it. */
export type Ending =
  | { readonly kind: 'complete' }
  | { readonly kind: 'failed'; readonly error: StoredError; readonly undo: boolean }
  | { readonly kind: 'interrupted'; readonly error: StoredError };

/**
 * Works through the steps, group after group, from wherever the journal stands. Before anything is touched the intent is
 * durable, and the lease has just been seen to be held; an attempt that follows an unfinished one first asks the step whether its
 * effect is there already. Throws only when the journal cannot be written or the lease is lost: then nothing may be
 * recorded any more, and whoever holds the lease next goes on from the journal.
 */
export class Executor {
  readonly #execution: Execution;
  /** Aborts all steps, with the reason why the whole run cannot go on. */
  readonly #fatal = new AbortController();

  constructor(execution: Execution) {
    this.#execution = execution;
  }

  async forward(): Promise<Ending> {
    const { instances, signal } = this.#execution;
    const groups = Map.groupBy(instances, ({ group }) => group);
    for (const members of groups.values()) {
      const endings = await Promise.all(members.map((instance) => this.#fatally(() => this.#step(instance, signal))));
      this.#throwIfFatal();
      const ending =
        endings.find(({ kind }) => kind === 'failed') ?? endings.find(({ kind }) => kind === 'interrupted');
      if (ending) return ending;
      if (signal.aborted) return { kind: 'interrupted', error: storeError(this.#interruption(signal)) };
    }
    return { kind: 'complete' };
  }

  /** Undoes every step that may have left something, newest first. One that fails is recorded, and the others are undone all the same. */
  async backward(): Promise<void> {
    const { instances, journal } = this.#execution;
    for (const instance of [...instances].reverse()) {
      const state = this.#state(instance);
      if (needsUndo(state)) await this.#fatally(() => this.#undo(instance));
      this.#throwIfFatal();
    }
    await journal.settle();
  }

  async #step(instance: StepInstance, signal: AbortSignal): Promise<Ending> {
    const { journal, clock } = this.#execution;
    const { spec, id } = instance;
    const before = this.#state(instance);
    if (isSettled(before) && !before.anotherChance) return { kind: 'complete' };
    if (instance.skip !== undefined) {
      await journal.append({ type: 'step-skipped', step: id, reason: instance.skip });
      return { kind: 'complete' };
    }
    for (let tries = 0; ; tries++) {
      if (signal.aborted) return { kind: 'interrupted', error: storeError(this.#interruption(signal)) };
      const attempt = this.#state(instance).attempts + 1;
      const notes: string[] = [];
      let failure: unknown;
      try {
        if (spec.approval && this.#state(instance).approval?.status !== 'given') {
          const prompt = resolveText(spec.approval.prompt, this.#scope(instance));
          const asked = { ...spec.approval, prompt };
          await awaitApproval(journal, this.#execution, instance, asked, this.#stepSignal(signal));
        }
        await this.#beforeEffect();
        await journal.append({ type: 'step-started', step: id, attempt });
        const { outputs, found } = await this.#attempt(instance, attempt > 1, signal, notes);
        await journal.append({ type: 'step-finished', step: id, found, outputs, evidence: notes });
        return { kind: 'complete' };
      } catch (error) {
        this.#throwIfFatal();
        // The step was stopped in the middle: its state stays "running", which a resume looks into.
        if (signal.aborted) return { kind: 'interrupted', error: storeError(this.#interruption(signal)) };
        failure = error;
      }
      const error = storeError(failure);
      // Without an intent there is no attempt to record: an approval that did not come.
      const running = this.#state(instance).status === 'running';
      if (!running) return { kind: 'failed', error, undo: false };
      const again = tries < spec.retries && failure instanceof DrError && failure.retryable;
      const follows = again ? 'again' : spec.onFailure === 'continue' ? 'tolerated' : 'stop';
      await journal.append({ type: 'step-failed', step: id, error, evidence: notes, follows });
      if (follows === 'tolerated') return { kind: 'complete' };
      if (follows === 'stop') return { kind: 'failed', error, undo: spec.onFailure === 'undo' };
      await clock.sleep(backoffMs(tries + 1, 1000, 30_000), this.#stepSignal(signal)).catch(() => {});
    }
  }

  async #attempt(
    instance: StepInstance,
    repeated: boolean,
    signal: AbortSignal,
    notes: string[],
  ): Promise<{ outputs: Record<string, unknown>; found: boolean }> {
    const { spec } = instance;
    const params = resolveParams(spec.with, this.#scope(instance));
    return await this.#limited(spec, `step ${instance.id}`, signal, async (limited) => {
      const context = this.#context(instance, limited, notes);
      if (repeated && spec.kind.effect === 'changes') {
        const outputs = await spec.kind.done(context, params);
        if (outputs) return { outputs, found: true };
      }
      return { outputs: await spec.kind.run(context, params), found: false };
    });
  }

  async #undo(instance: StepInstance): Promise<void> {
    const { journal } = this.#execution;
    const { id, spec } = instance;
    const notes: string[] = [];
    await this.#beforeEffect();
    await journal.append({ type: 'step-undo-started', step: id });
    try {
      const params = resolveParams(spec.with, this.#scope(instance));
      // Not the signal of Ctrl-C: cleaning up is what an interruption leads to.
      const own = new AbortController();
      await this.#limited(spec, `undoing step ${id}`, own.signal, async (limited) => {
        await spec.kind.undo(this.#context(instance, limited, notes), params, this.#state(instance).outputs);
      });
    } catch (error) {
      this.#throwIfFatal();
      await journal.append({ type: 'step-undo-failed', step: id, error: storeError(error) });
      return;
    }
    await journal.append({ type: 'step-undo-finished', step: id, evidence: notes });
  }

  /** The last look before something is touched: the lease in the store, not only what a timer believes. */
  async #beforeEffect(): Promise<void> {
    try {
      this.#execution.lease.signal.throwIfAborted();
      await this.#execution.lease.stillHeld();
    } catch (error) {
      this.#fatal.abort(error);
      throw error;
    }
  }

  async #limited<T>(
    spec: StepSpec,
    doing: string,
    signal: AbortSignal,
    work: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    return await within(this.#execution.clock, spec.timeoutMs, STOP_GRACE_MS, doing, this.#stepSignal(signal), work);
  }

  /** Runs one piece of the run; a failed append or a lost lease in it ends everything. */
  async #fatally<T>(work: () => Promise<T>): Promise<T | Ending> {
    try {
      return await work();
    } catch (error) {
      this.#fatal.abort(error);
      return { kind: 'complete' };
    }
  }

  #throwIfFatal(): void {
    const { lease, journal } = this.#execution;
    if (this.#fatal.signal.aborted) throw this.#fatal.signal.reason;
    if (lease.signal.aborted) throw lease.signal.reason;
    if (journal.failure !== undefined) throw journal.failure;
  }

  #stepSignal(signal: AbortSignal): AbortSignal {
    return AbortSignal.any([signal, this.#fatal.signal, this.#execution.lease.signal]);
  }

  #interruption(signal: AbortSignal): unknown {
    if (signal.reason instanceof DrError) return signal.reason;
    const drill = this.#execution.journal.state.started?.mode === 'drill';
    return new DrError('interrupted', 'the run was interrupted', {
      next: drill ? 'The same command begins another drill.' : 'Run the same command again: it goes on from here.',
    });
  }

  #state(instance: StepInstance): StepState {
    const state = this.#execution.journal.state.steps.find(({ plan }) => plan.id === instance.id);
    if (state === undefined) throw new DrError('internal', `the journal does not know step ${instance.id}`);
    return state;
  }

  #context(instance: StepInstance, signal: AbortSignal, notes: string[]): StepContext {
    const { world, clock, log, journal, onProgress } = this.#execution;
    return {
      run: factsOf(journal),
      each: instance.each,
      world,
      clock,
      log: log.child({ run: journal.runId, step: instance.id }),
      signal,
      progress: (progress) => onProgress(instance.id, progress),
      note: (sentence) => notes.push(sentence),
    };
  }

  #scope(instance: StepInstance): Scope {
    const { journal, instances } = this.#execution;
    return scopeOf(
      factsOf(journal),
      instance,
      instances,
      (id) => journal.state.steps.find(({ plan }) => plan.id === id)?.outputs,
    );
  }
}

/** The facts that steps see, from the journal. */
export function factsOf(journal: Journal): RunFacts {
  const { started, startedAtMs, acceptedSplitBrain } = journal.state;
  if (started === undefined) throw new DrError('internal', `run ${journal.runId} has not started`);
  const { mode, site, from, at } = started;
  return { id: journal.runId, mode, site, from, at, startedAtMs, acceptedSplitBrain };
}

/**
 * Where the parameters of one execution come from. A step with `forEach` that refers to another over the same collection sees the
 * output for its own member; seen from anywhere else such outputs are an object by member.
 */
export function scopeOf(
  run: RunFacts,
  instance: StepInstance,
  instances: readonly StepInstance[],
  outputsOf: (instanceId: string) => Readonly<Record<string, unknown>> | undefined,
): Scope {
  return {
    run,
    each: instance.each,
    output: (step, output) => {
      const sources = instances.filter(({ spec }) => spec.id === step);
      const [source] = sources;
      if (source?.spec.forEach === undefined) return source && outputsOf(source.id)?.[output];
      if (source.spec.forEach === instance.spec.forEach) {
        const same = sources.find(({ each }) => each === instance.each);
        return same && outputsOf(same.id)?.[output];
      }
      const entries = sources.map(({ id, each }) => [each, outputsOf(id)?.[output]] as const);
      return entries.some(([, value]) => value === undefined) ? undefined : Object.fromEntries(entries);
    },
  };
}
