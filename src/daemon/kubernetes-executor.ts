import { createHash } from 'node:crypto';
import type { Clock } from '../base/clock.ts';
import { DrError, isAbort, messageOf } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { Cluster, ClusterObject, ObjectRef } from '../cluster/contract.ts';
import { jobLabels, jobObject } from '../cluster/job-object.ts';
import { endOf, type JobState, listJobs } from '../cluster/jobs.ts';
import { removeSnapshot } from '../cluster/snapshots.ts';
import type { ExecutorConfig } from '../config/daemon-types.ts';
import { JobFollower } from './cluster-job.ts';
import { failureOf } from './command-results.ts';
import type { ClusterJobCounts, Executor, RunningTask, Task } from './executor.ts';
import { jobName } from './job-names.ts';
import type { Leadership } from './leader.ts';

export interface KubernetesExecutorOptions {
  readonly cluster: Cluster;
  readonly config: ExecutorConfig;
  readonly site: string;
  /** The daemon's own pod: the pattern of the Jobs. */
  readonly pod: { readonly namespace: string; readonly name: string };
  /** Folder `scratch` of the configuration. */
  readonly scratch: string;
  /** Where the resources with volumes lie at this site, by name. */
  readonly paths: Readonly<Record<string, string>>;
  readonly leadership: Leadership;
  readonly clock: Clock;
  readonly log: Log;
  /** Longest pause between two looks at a Job, milliseconds; default 5 s. */
  readonly pollMs?: number | undefined;
}

const CANCEL_MS = 10_000;
const ADOPT_AGAIN_MS = 30_000;

/**
 * Does the work of the daemon as Jobs of the cluster, with the daemon's own pod as their pattern. A Job has one name for one occurrence of one
 * task, so that of two leaders only one makes it, and whoever leads later follows it to its end; and what it does asks the vaults whether
 * somebody has done it since (`--if-none-since`), so that a Job that begins twice, or late, does nothing.
 */
export class KubernetesExecutor implements Executor {
  readonly parallel: number;
  readonly #options: KubernetesExecutorOptions;
  readonly #namespace: string;
  readonly #letGo = new AbortController();
  /** By name of the Job. */
  readonly #following = new Map<string, { readonly follower: JobFollower; readonly end: Promise<JobState> }>();
  readonly #ended = new Map<string, number>();
  #adopting: Promise<void> | undefined;

  constructor(options: KubernetesExecutorOptions) {
    this.#options = options;
    this.parallel = options.config.parallel;
    this.#namespace = options.config.namespace ?? options.pod.namespace;
  }

  async run(task: Task, signal: AbortSignal): Promise<object> {
    const { site } = this.#options;
    const stop = AbortSignal.any([signal, this.#letGo.signal]);
    let job: ClusterObject | undefined;
    try {
      for (;;) {
        job = await this.#begin(task, stop);
        const state = await abortable(this.#follow(job), stop);
        // One of an earlier occurrence ran still; when somebody asked after it had begun, it is not what was asked for.
        if (occurrenceOf(job) >= task.occurrenceMs) return this.#outcome(task, state);
      }
    } catch (error) {
      if (signal.aborted && !task.wanted()) await this.#cancel(selectorOf(site, task));
      if (signal.aborted || !this.#letGo.signal.aborted) throw error;
      const name = job?.metadata.name ?? jobName(this.#options.site, task, 0);
      throw new DrError('lease-held', `the Job ${name} goes on without this process`, { cause: error });
    }
  }

  adopt(): void {
    if (!this.#options.leadership.leads()) return;
    this.#adopting ??= this.#adoptAll().finally(() => {
      this.#adopting = undefined;
    });
  }

  endBackups(): void {
    const { site, leadership } = this.#options;
    if (leadership.leads()) void this.#cancel(`${jobLabels.site}=${labelOf(site)},${jobLabels.verb}=backup`);
  }

  letGo(reason: DrError): void {
    this.#letGo.abort(reason);
  }

  running(): readonly RunningTask[] {
    return [...this.#following.values()].map(({ follower }) => follower.task());
  }

  counts(): ClusterJobCounts {
    const running: Record<string, number> = { backup: 0, verify: 0 };
    for (const { verb } of this.running()) running[verb] = (running[verb] ?? 0) + 1;
    const ended = [...this.#ended].map(([key, number]) => {
      const [verb = '', outcome = ''] = key.split(' ');
      return { verb, outcome: outcome as 'succeeded', number };
    });
    return { running, ended };
  }

  /** The Job of the task: one that runs, the one that has done it, or a new one. */
  async #begin(task: Task, signal: AbortSignal): Promise<ClusterObject> {
    const { cluster, site, leadership, log } = this.#options;
    const known = await listJobs(cluster, this.#namespace, selectorOf(site, task), signal);
    const running = known.filter((job) => endOf(job) === undefined && !job.metadata.deletionTimestamp);
    const [active] = running.sort((a, b) => occurrenceOf(b) - occurrenceOf(a));
    if (active) return active;
    const same = known.filter((job) => occurrenceOf(job) === task.occurrenceMs);
    const done = same.find((job) => endOf(job) === 'succeeded');
    if (done) return done;
    // Right before the effect: a process that stood still until now is told here that another one leads.
    await leadership.confirm(signal);
    const wanted = await this.#object(task, same.length, signal);
    try {
      const made = await cluster.create(wanted, {}, signal);
      log.info({ job: made.metadata.name, resource: task.resource, verb: task.verb }, 'Job made');
      return made;
    } catch (error) {
      if (!(error instanceof DrError && error.kind === 'conflict')) throw error;
      return await cluster.get(this.#refOf(wanted), signal);
    }
  }

  #follow(job: ClusterObject): Promise<JobState> {
    const { name } = job.metadata;
    const known = this.#following.get(name);
    if (known) return known.end;
    const { cluster, config, leadership, clock, log, pollMs = 5000 } = this.#options;
    const { labels = {} } = job.metadata;
    const resource = Object.entries(this.#options.config.volumes).find(
      ([each]) => labelOf(each) === labels[jobLabels.resource],
    );
    const volume = labels[jobLabels.verb] === 'backup' ? resource?.[1] : undefined;
    const follower = new JobFollower({
      cluster,
      ref: this.#refOf(job),
      verb: labels[jobLabels.verb] === 'verify' ? 'verify' : 'backup',
      resource: job.metadata.annotations?.[jobLabels.resource] ?? '',
      snapshotOf: volume?.snapshot ? { claim: volume.claim, ...volume.snapshot } : undefined,
      patienceMs: config.patienceMs,
      isMine: () => leadership.state?.role !== 'standby',
      signal: this.#letGo.signal,
      clock,
      log: log.child({ job: name }),
      pollMs,
    });
    const verb = follower.task().verb;
    const end = follower
      .end()
      .then(
        (state) => {
          this.#count(verb, state.phase === 'succeeded' ? 'succeeded' : 'failed');
          return state;
        },
        (error: unknown) => {
          if (follower.neverBegan) this.#count(verb, 'not-started');
          throw error;
        },
      )
      .finally(() => this.#following.delete(name));
    end.catch(() => {});
    this.#following.set(name, { follower, end });
    return end;
  }

  #outcome(task: Task, state: JobState): object {
    const { ref, pod, phase, reason, message } = state;
    const job = { job: ref.name, ...(pod !== undefined && { pod: `${ref.namespace}/${pod}` }) };
    const where = pod === undefined ? `Job ${ref.namespace}/${ref.name}` : `pod ${ref.namespace}/${pod}`;
    const document = documentIn(message);
    if (document?.result !== undefined) return { ...task.told(document.result), ...job };
    if (phase === 'succeeded') return job;
    if (document?.error !== undefined) {
      const { kind, message: said, where: at, next } = failureOf(document.error);
      const facts = { where: at === undefined ? where : `${at} (${where})`, ...(next !== undefined && { next }) };
      throw new DrError(kind, said, facts);
    }
    const last = message?.trim().split('\n').at(-1);
    throw new DrError(
      'unreachable',
      `the Job of ${task.verb} ${task.resource} failed: ${reason ?? 'no reason given'}${last ? `: ${last}` : ''}`,
      {
        where,
        next: `Look at its log: kubectl logs -n ${ref.namespace} ${pod ?? `job/${ref.name}`}${/OOMKilled/.test(reason ?? '') ? '; give Jobs more memory (executor.kubernetes.limits)' : ''}.`,
      },
    );
  }

  /** Ends the Jobs of what is nobody's work any more, one that was just being made included; pods get the time to stop cleanly. */
  async #cancel(selector: string): Promise<void> {
    const { cluster, config, log } = this.#options;
    const signal = AbortSignal.timeout(CANCEL_MS);
    try {
      const jobs = await listJobs(cluster, this.#namespace, selector, signal);
      for (const job of jobs.filter((each) => endOf(each) === undefined)) {
        const ref = this.#refOf(job);
        await cluster.delete(ref, {}, signal);
        if (config.volumes[job.metadata.annotations?.[jobLabels.resource] ?? '']?.snapshot) {
          await removeSnapshot(cluster, { namespace: this.#namespace, name: ref.name }, signal);
        }
        log.warn({ job: ref.name }, 'Job cancelled');
      }
    } catch (error) {
      if (error instanceof DrError && error.kind === 'not-found') return;
      log.error({ selector, error }, 'a Job that nobody wants any more could not be cancelled');
    }
  }

  async #adoptAll(): Promise<void> {
    const { cluster, site, leadership, clock, log } = this.#options;
    const { signal } = this.#letGo;
    while (!signal.aborted && leadership.leads()) {
      try {
        for (const job of await listJobs(cluster, this.#namespace, `${jobLabels.site}=${labelOf(site)}`, signal)) {
          const { name, deletionTimestamp } = job.metadata;
          if (endOf(job) !== undefined || deletionTimestamp || this.#following.has(name)) continue;
          log.info({ job: name }, 'a Job runs already: it is followed to its end');
          void this.#follow(job).then(
            ({ phase, reason }) => log.info({ job: name, phase, reason }, 'a Job that ran already has ended'),
            (error: unknown) => {
              if (!isAbort(error)) log.warn({ job: name, reason: messageOf(error) }, 'a Job that ran already is lost');
            },
          );
        }
        return;
      } catch (error) {
        if (signal.aborted) return;
        log.warn({ error }, 'Jobs that may run already cannot be listed; asked again soon');
        await clock.sleep(ADOPT_AGAIN_MS, signal).catch(() => {});
      }
    }
  }

  async #object(task: Task, attempt: number, signal: AbortSignal): Promise<ClusterObject> {
    const { cluster, config, site, pod, scratch, paths, leadership } = this.#options;
    const { verb, resource, occurrenceMs, args } = task;
    const volume = verb === 'backup' ? config.volumes[resource] : undefined;
    const path = paths[resource];
    const name = jobName(site, task, attempt);
    const occurrence = new Date(occurrenceMs).toISOString();
    const { state } = leadership;
    const env = Object.entries(config.env).map(([variable, { secret, key }]) => ({
      name: variable,
      valueFrom: { secretKeyRef: { name: secret, key } },
    }));
    const own = await cluster.get({ apiVersion: 'v1', kind: 'Pod', ...pod }, signal);
    return jobObject(own, {
      namespace: this.#namespace,
      name,
      labels: {
        [jobLabels.site]: labelOf(site),
        [jobLabels.verb]: verb,
        [jobLabels.resource]: labelOf(resource),
        [jobLabels.occurrence]: String(occurrenceMs),
      },
      annotations: {
        [jobLabels.resource]: resource,
        [jobLabels.occurrence]: occurrence,
        ...(state && { 'dr.io/leader': state.identity, 'dr.io/generation': String(state.generation) }),
      },
      args: [verb, resource, '--json', '--site', site, '--if-none-since', occurrence, ...args],
      image: config.image,
      serviceAccount: config.serviceAccount,
      env: [
        ...env,
        { name: 'DR_RESULT_FILE', value: '/dev/termination-log' },
        { name: 'DR_PROGRESS', value: 'log' },
        { name: 'DR_LOG_LEVEL', value: 'info' },
      ],
      requests: config.requests,
      limits: config.limits,
      nodeSelector: config.nodeSelector,
      tolerations: config.tolerations,
      claims: [
        ...config.mounts,
        ...(volume && path !== undefined
          ? [{ claim: volume.snapshot ? name : volume.claim, path, subPath: volume.subPath, readOnly: true }]
          : []),
        ...(config.scratch.claim === undefined
          ? []
          : [{ claim: config.scratch.claim, path: scratch, readOnly: false }]),
      ],
      scratch: config.scratch.claim === undefined ? { path: scratch, sizeLimit: config.scratch.sizeLimit } : undefined,
      runAsUser: volume?.runAsUser,
      runAsGroup: volume?.runAsGroup,
      ttlSeconds: Math.round(config.ttlMs / 1000),
      suspended: volume?.snapshot !== undefined,
    });
  }

  #count(verb: string, outcome: string): void {
    const key = `${verb} ${outcome}`;
    this.#ended.set(key, (this.#ended.get(key) ?? 0) + 1);
  }

  #refOf({ metadata }: ClusterObject): ObjectRef {
    return { apiVersion: 'batch/v1', kind: 'Job', namespace: this.#namespace, name: metadata.name };
  }
}

/** A text as the value of a label. */
function labelOf(text: string): string {
  if (/^[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$/.test(text)) return text;
  return createHash('sha256').update(text).digest('hex').slice(0, 32);
}

function selectorOf(site: string, { verb, resource }: Task): string {
  return `${jobLabels.site}=${labelOf(site)},${jobLabels.verb}=${verb},${jobLabels.resource}=${labelOf(resource)}`;
}

function occurrenceOf({ metadata }: ClusterObject): number {
  return Number(metadata.labels?.[jobLabels.occurrence] ?? 0);
}

function documentIn(message: string | undefined): { readonly result?: unknown; readonly error?: unknown } | undefined {
  try {
    const said: unknown = JSON.parse(message ?? '');
    return typeof said === 'object' && said !== null ? said : undefined;
  } catch {
    return undefined;
  }
}

async function abortable<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted();
  const stop = new AbortController();
  const aborted = new Promise<never>((_, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason), { once: true, signal: stop.signal });
  });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    stop.abort();
  }
}
