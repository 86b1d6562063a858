import type { Clock } from '../base/clock.ts';
import { DrError, messageOf } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { formatBytes, formatDuration } from '../base/units.ts';
import type { Cluster, ObjectRef } from '../cluster/contract.ts';
import { type JobState, lookAtJob } from '../cluster/jobs.ts';
import { prepareSnapshot, removeSnapshot } from '../cluster/snapshots.ts';
import type { RunningTask, Task } from './executor.ts';

export interface JobFollowerOptions {
  readonly cluster: Cluster;
  readonly ref: ObjectRef;
  readonly verb: Task['verb'];
  readonly resource: string;
  /** The Job reads a snapshot of this claim, which is made for it. */
  readonly snapshotOf:
    | { readonly claim: string; readonly class: string | undefined; readonly storageClass: string | undefined }
    | undefined;
  /** How long it may wait to begin, or its pod to go when its node is not heard of. */
  readonly patienceMs: number;
  /** False once another replica leads: it follows the Job now. */
  isMine(): boolean;
  /** Aborts when this process lets go of it. */
  readonly signal: AbortSignal;
  readonly clock: Clock;
  readonly log: Log;
  readonly pollMs: number;
}

const FIRST_POLL_MS = 250;

/**
 * Follows one Job to its end: prepares the snapshot that it reads, tells what it waits for, gives up on one that cannot begin. An API server
 * that does not answer is waited for, because the Job goes on without it.
 */
export class JobFollower {
  readonly #options: JobFollowerOptions;
  readonly #told = new Set<string>();
  #state: JobState | undefined;
  #progress: string | undefined;
  #askedMs = Number.NEGATIVE_INFINITY;
  /** Since when it waits, or its pod leaves. */
  #since: { readonly phase: string; readonly ms: number } | undefined;
  #neverBegan = false;

  constructor(options: JobFollowerOptions) {
    this.#options = options;
  }

  /** It was given up, because the cluster did not begin it. */
  get neverBegan(): boolean {
    return this.#neverBegan;
  }

  task(): RunningTask {
    const { verb, resource, ref } = this.#options;
    const job = `Job ${ref.namespace}/${ref.name}`;
    return { verb, resource, job, pod: this.#state?.pod, detail: this.#state?.reason ?? this.#progress };
  }

  /** Resolves when it has ended, well or not. Throws when it is gone, could not begin, or is followed by another replica now. */
  async end(): Promise<JobState> {
    const { clock, signal, pollMs, snapshotOf } = this.#options;
    for (let pauseMs = FIRST_POLL_MS; ; pauseMs = Math.min(pollMs, pauseMs * 1.5)) {
      signal.throwIfAborted();
      this.#requireMine();
      const state = await this.#look();
      if (state) {
        this.#note(state);
        if (state.phase === 'succeeded' || state.phase === 'failed') {
          if (snapshotOf) await this.#removeSnapshot();
          return state;
        }
        if (state.phase === 'suspended') await this.#prepare(state);
        else if (state.phase === 'running') await this.#askProgress(state);
        else await this.#judgeWaiting(state);
      }
      await clock.sleep(pauseMs, signal);
    }
  }

  /** Undefined while the API server does not answer. */
  async #look(): Promise<JobState | undefined> {
    const { cluster, ref, signal, log } = this.#options;
    try {
      return await lookAtJob(cluster, ref, signal);
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof DrError && error.kind === 'not-found') {
        throw new DrError('unreachable', `the Job ${ref.name} was deleted before it had ended`, {
          where: `Job ${ref.namespace}/${ref.name} in ${cluster.target}`,
          next: 'Find out who deleted it; it is tried again, and not twice if it was done.',
          cause: error,
        });
      }
      if (!(error instanceof DrError && error.retryable)) throw error;
      if (this.#isNew(`silence ${messageOf(error)}`))
        log.warn({ error }, 'the Job cannot be looked at now; it goes on');
      return undefined;
    }
  }

  #note(state: JobState): void {
    const { log } = this.#options;
    for (const { pod, reason } of state.replaced) {
      if (this.#isNew(`replaced ${pod}`))
        log.warn({ pod, reason }, 'a pod of the Job was ended by the cluster; another one takes its place');
    }
    if (state.pod !== undefined && this.#isNew(`pod ${state.pod}`)) log.info({ pod: state.pod }, 'the Job has a pod');
    if (state.reason !== undefined && this.#isNew(`reason ${state.reason}`)) {
      log.info({ pod: state.pod, phase: state.phase, reason: state.reason }, 'what the Job says');
    }
    const { phase } = state;
    if (this.#since?.phase !== phase) this.#since = { phase, ms: this.#options.clock.now() };
    this.#state = state;
  }

  async #judgeWaiting(state: JobState): Promise<void> {
    const { clock, patienceMs, verb, resource, ref, cluster } = this.#options;
    if (this.#since === undefined || clock.now() - this.#since.ms < patienceMs) return;
    await this.#giveUp(state);
    const where = `${state.pod === undefined ? `Job ${ref.namespace}/${ref.name}` : `pod ${ref.namespace}/${state.pod}`} in ${cluster.target}`;
    if (state.phase === 'leaving') {
      throw new DrError('unreachable', `the pod of ${verb} ${resource} does not end: ${state.reason}`, {
        where,
        next: 'Look at its node: one that is lost must be removed from the cluster before its pods count as ended.',
      });
    }
    this.#neverBegan = true;
    throw new DrError(
      'unreachable',
      `the Job of ${verb} ${resource} has not begun after ${formatDuration(patienceMs)}: ${state.reason}`,
      { where, next: nextStep(state.reason ?? '') },
    );
  }

  /** Deletes the Job, so that its pod does not begin when nobody expects it any more. */
  async #giveUp(state: JobState): Promise<void> {
    const { cluster, ref, signal, snapshotOf } = this.#options;
    try {
      await cluster.delete(ref, { uid: state.uid }, signal);
    } catch (error) {
      if (!(error instanceof DrError && error.kind === 'not-found')) throw error;
    }
    if (snapshotOf) await this.#removeSnapshot();
  }

  async #prepare(state: JobState): Promise<void> {
    const { cluster, ref, snapshotOf, patienceMs, clock, signal } = this.#options;
    const { namespace = '', name } = ref;
    if (snapshotOf) {
      const plan = {
        namespace,
        name,
        source: snapshotOf.claim,
        snapshotClass: snapshotOf.class,
        storageClass: snapshotOf.storageClass,
        labels: state.labels,
        owner: { name, uid: state.uid },
      };
      try {
        await prepareSnapshot(cluster, plan, { patienceMs, clock, signal });
      } catch (error) {
        signal.throwIfAborted();
        if (error instanceof DrError && error.retryable && error.where?.startsWith('VolumeSnapshot') !== true) return;
        this.#neverBegan = true;
        await this.#giveUp(state);
        throw error;
      }
    }
    this.#requireMine();
    try {
      await cluster.merge(ref, { spec: { suspend: false } }, {}, signal);
    } catch (error) {
      // The next look finds it as it is.
      if (!(error instanceof DrError && error.retryable)) throw error;
    }
  }

  async #removeSnapshot(): Promise<void> {
    const { cluster, ref, signal, log } = this.#options;
    try {
      await removeSnapshot(cluster, { namespace: ref.namespace ?? '', name: ref.name }, signal);
    } catch (error) {
      log.warn({ error }, 'the snapshot of the Job could not be removed; it goes when the Job goes');
    }
  }

  async #askProgress({ pod }: JobState): Promise<void> {
    const { cluster, ref, clock, signal, log, pollMs } = this.#options;
    if (pod === undefined || clock.now() - this.#askedMs < 2 * pollMs) return;
    this.#askedMs = clock.now();
    try {
      const text = await cluster.log(
        { namespace: ref.namespace ?? '', name: pod },
        { lines: 20, bytes: 16_384 },
        signal,
      );
      this.#progress = lastProgress(text) ?? this.#progress;
    } catch (error) {
      signal.throwIfAborted();
      log.debug({ pod, reason: messageOf(error) }, 'the log of the pod cannot be read now');
    }
  }

  #requireMine(): void {
    const { isMine, ref } = this.#options;
    if (!isMine()) throw new DrError('lease-held', `another replica follows the Job ${ref.name} now`);
  }

  #isNew(fact: string): boolean {
    if (this.#told.has(fact)) return false;
    this.#told.add(fact);
    return true;
  }
}

function nextStep(reason: string): string {
  if (/Image/i.test(reason))
    return 'Correct the image (executor.kubernetes.image), or give the cluster the right to pull it (imagePullSecrets).';
  if (/Unschedulable/.test(reason))
    return 'Make room: no node takes the pod (executor.kubernetes.requests, nodeSelector, tolerations, its volumes).';
  if (/CreateContainerConfigError/.test(reason)) return 'Make the Secret or ConfigMap that it names.';
  return 'Look at the events of the pod: kubectl describe pod.';
}

/** The last line of the log that says how far it is. */
function lastProgress(text: string): string | undefined {
  for (const line of text.trim().split('\n').toReversed()) {
    const match = /"progress":(\{.*?\})/.exec(line)?.[1];
    if (match === undefined) continue;
    try {
      const { done, total, unit, detail } = JSON.parse(match);
      const amount = (value: number) => (unit === 'bytes' ? formatBytes(value) : `${value} ${unit}`);
      const share = total > 0 ? `${Math.floor((done / total) * 100)} % of ${amount(total)}` : amount(done);
      return detail === undefined ? share : `${share}: ${detail}`;
    } catch {
      // Cut off at the beginning of what was asked for.
    }
  }
  return undefined;
}
