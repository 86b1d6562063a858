import type { Clock } from '../../base/clock.ts';
import { forEachLimit } from '../../base/concurrency.ts';
import { DrError } from '../../base/errors.ts';
import type { Log } from '../../base/log.ts';
import type { OnProgress } from '../../base/progress.ts';
import type { Cluster, ClusterObject } from '../../cluster/contract.ts';
import { fieldManager, refOf, showRef } from '../../cluster/contract.ts';
import { fieldConflicts, statusOf } from '../../cluster/errors.ts';
import { shownPair } from '../compare/mask.ts';
import { hunksOf, linesOf } from '../compare/text-diff.ts';
import { checkRestore } from './check.ts';
import { cleaned } from './clean.ts';
import { digestOf } from './live.ts';
import { phases } from './order.ts';
import { Patience } from './patience.ts';
import { type Item, planRestore, type RestoreWishes } from './plan.ts';
import type { BackedObjects } from './read.ts';
import { imagesOf } from './references.ts';
import { failureOf, type ObjectResult, type ObjectsResult } from './result.ts';
import { definedKinds } from './served.ts';

/** Objects applied at once. */
const APPLIES_IN_FLIGHT = 8;
/** Times that one object is tried while the API server comes and goes. */
const TRIES = 3;
/** How long a kind may take from its definition until it is served, milliseconds. */
const ESTABLISHED_MS = 60_000;
const ESTABLISHED_POLL_MS = 250;
/** How long an API server may be away, milliseconds. */
const PATIENCE_MS = 5 * 60_000;

export interface RestoreObjectsOptions extends RestoreWishes {
  readonly cluster: Cluster;
  /** For progress: name of the configuration. */
  readonly name: string;
  /** Take over fields that belong to other managers. */
  readonly force: boolean;
  /** Nothing is stored: the server says what would become of each object. */
  readonly dryRun: boolean;
  readonly clock: Clock;
  readonly log: Log;
  readonly signal: AbortSignal;
  readonly onProgress?: OnProgress | undefined;
  readonly patienceMs?: number;
}

/**
 * Restores objects into a cluster by server-side apply, in the order of their dependencies. Never deletes. Every object has its own
 * result; what fails does not stop the rest. Repeating it changes nothing that is as it should be, so a restore that was cut is
 * gone on with by doing it again. Throws when there is nothing to begin with (cluster away, backup empty for `only`).
 */
export async function restoreObjects(backed: BackedObjects, options: RestoreObjectsOptions): Promise<ObjectsResult> {
  const { cluster, signal } = options;
  const plan = await planRestore(cluster, backed, options, signal);
  const findings = await checkRestore(cluster, plan, backed, options, signal);
  const run = new Run(options, plan.items);
  await run.all();
  const images = new Set(plan.items.flatMap(({ object }) => imagesOf(object)));
  return {
    objects: [...plan.settled, ...plan.items.map((item) => run.resultOf(item))],
    findings,
    extras: plan.extras,
    images: [...images].sort(),
    stopped: run.stopped,
  };
}

class Run {
  readonly #options: RestoreObjectsOptions;
  readonly #items: readonly Item[];
  readonly #results = new Map<Item, ObjectResult>();
  readonly #patience: Patience;
  /** Namespaces that this run makes and that are not there yet: in a dry run they never are. */
  readonly #comingNamespaces: ReadonlySet<string>;
  stopped: DrError | undefined;

  constructor(options: RestoreObjectsOptions, items: readonly Item[]) {
    this.#options = options;
    this.#items = items;
    const { cluster, clock, log, patienceMs = PATIENCE_MS } = options;
    this.#patience = new Patience(cluster, { clock, log, longestMs: patienceMs });
    this.#comingNamespaces = new Set(
      items
        .filter(({ object, live, isLiveKnown }) => object.kind === 'Namespace' && isLiveKnown && live === undefined)
        .map(({ object }) => object.metadata.name),
    );
  }

  resultOf(item: Item): ObjectResult {
    const note = item.note;
    return this.#results.get(item) ?? { ref: refOf(item.object), outcome: 'not-tried', note };
  }

  async all(): Promise<void> {
    for (const phase of phases) {
      const items = this.#items.filter((item) => item.phase === phase);
      for (const rank of new Set(items.map((item) => item.rank)))
        await this.#each(items.filter((item) => item.rank === rank));
      if (phase === 'definitions') await this.#waitUntilServed(items);
    }
    // What it needs may have come after it: an issuer's definition, a webhook's pod, a right.
    const failed = this.#items.filter((item) => {
      const error = this.#results.get(item)?.error;
      return error !== undefined && error.conflicts.length === 0;
    });
    if (failed.length > 0 && failed.length < this.#items.length && !this.#options.dryRun) await this.#each(failed);
  }

  async #each(items: readonly Item[]): Promise<void> {
    const { name, onProgress } = this.#options;
    await forEachLimit(items, APPLIES_IN_FLIGHT, async (item) => {
      if (this.stopped) return;
      const result = await this.#one(item);
      if (result) this.#results.set(item, result);
      const detail = showRef(refOf(item.object));
      onProgress?.({
        task: `restore ${name}`,
        done: this.#results.size,
        total: this.#items.length,
        unit: 'objects',
        detail,
      });
    });
  }

  /** Undefined when the restore has to end here. */
  async #one(item: Item): Promise<ObjectResult | undefined> {
    const { signal, clock } = this.#options;
    const ref = refOf(item.object);
    const { note } = item;
    for (let attempt = 1; ; attempt++) {
      try {
        if (signal.aborted) throw new DrError('interrupted', 'the restore was stopped', { cause: signal.reason });
        return await this.#apply(item);
      } catch (caught) {
        if (!(caught instanceof DrError)) throw caught;
        let error = caught;
        if (error.retryable && attempt < TRIES) {
          try {
            await this.#patience.untilBack(error, signal);
            // It answers, and not to this: a webhook that is not up, or an overload.
            if (attempt > 1) await clock.sleep(500 * attempt, signal);
            continue;
          } catch (lost) {
            if (!(lost instanceof DrError) && !signal.aborted) throw lost;
            error =
              lost instanceof DrError ? lost : new DrError('interrupted', 'the restore was stopped', { cause: lost });
            this.stopped ??= error;
            return undefined;
          }
        }
        if (error.kind === 'interrupted' || statusOf(error)?.code === 401) {
          this.stopped ??= error;
          return undefined;
        }
        return { ref, outcome: 'failed', note, error: failureOf(error) };
      }
    }
  }

  async #apply(item: Item): Promise<ObjectResult> {
    const { cluster, force, dryRun, signal } = this.#options;
    const { object, note } = item;
    const ref = refOf(object);
    if (dryRun) return await this.#dryRun(item);
    const after = await applied(cluster, object, { force }, signal).catch(async (error: unknown) => {
      if (!hasDoubles(error) || !item.isLiveKnown) throw error;
      // What the server accepts when it is created, it does not always accept when it is applied.
      if (item.live === undefined) return await cluster.create(object, {}, signal);
      if (item.live.digest === digestOf(object)) return object;
      throw error;
    });
    if (item.live) {
      const isSame = digestOf(after) === item.live.digest;
      return { ref, outcome: isSame ? 'unchanged' : 'changed', note };
    }
    return { ref, outcome: item.isLiveKnown ? 'created' : 'applied', note };
  }

  /** What the server says would become of it; what comes with this restore and is not there yet cannot be asked about. */
  async #dryRun(item: Item): Promise<ObjectResult> {
    const { cluster, force, signal } = this.#options;
    const { object, type } = item;
    const ref = refOf(object);
    const unasked =
      type === undefined
        ? 'its definition comes with it'
        : this.#comingNamespaces.has(ref.namespace ?? '')
          ? 'its namespace comes with it'
          : undefined;
    let before: ClusterObject | undefined;
    let after: ClusterObject = object;
    if (unasked === undefined) {
      before = await cluster.get(ref, signal).catch((error: unknown) => {
        if (error instanceof DrError && error.kind === 'not-found') return undefined;
        throw error;
      });
      after = await applied(cluster, object, { force, dryRun: true }, signal);
    }
    const shown = shownPair(before && cleaned(before), cleaned(after));
    const hunks = hunksOf(linesOf(shown.before), linesOf(shown.after));
    const outcome = before === undefined ? 'created' : hunks.length > 0 ? 'changed' : 'unchanged';
    return { ref, outcome, note: item.note, unasked, hunks };
  }

  /** A definition is there at once; the kinds that it brings take a moment. */
  async #waitUntilServed(definitions: readonly Item[]): Promise<void> {
    const { cluster, clock, dryRun, signal } = this.#options;
    const kinds = definitions
      .filter((item) => this.#results.get(item)?.outcome !== 'failed')
      .flatMap(({ object }) => definedKinds(object))
      .flatMap(({ kind, apiVersions }) => apiVersions.map((apiVersion) => ({ apiVersion, kind })));
    const wanted = kinds.filter(({ apiVersion, kind }) =>
      this.#items.some(({ object }) => object.apiVersion === apiVersion && object.kind === kind),
    );
    if (dryRun || this.stopped) return;
    const deadline = clock.now() + ESTABLISHED_MS;
    for (const kind of wanted) {
      // A kind that is not served in time fails by name with its objects.
      while (!this.stopped && clock.now() < deadline) {
        try {
          await cluster.type(kind, signal);
          break;
        } catch (error) {
          if (!(error instanceof DrError) || error.kind === 'interrupted') {
            this.stopped ??= new DrError('interrupted', 'the restore was stopped', { cause: error });
            return;
          }
          await clock.sleep(ESTABLISHED_POLL_MS, signal).catch(() => {});
        }
      }
    }
  }
}

/** Applies; fields that dr itself set otherwise (a step that scaled the workload) are its own to take back. */
async function applied(
  cluster: Cluster,
  object: ClusterObject,
  options: { readonly force: boolean; readonly dryRun?: boolean },
  signal: AbortSignal,
): Promise<ClusterObject> {
  try {
    return await cluster.apply(object, options, signal);
  } catch (error) {
    const conflicts = fieldConflicts(error);
    if (conflicts.length === 0 || conflicts.some(({ manager }) => manager !== fieldManager)) throw error;
    return await cluster.apply(object, { ...options, force: true }, signal);
  }
}

/** True for an object with, for example, the same environment variable twice in a container. */
function hasDoubles(error: unknown): boolean {
  return error instanceof DrError && error.kind === 'refused' && error.message.includes('duplicate entries for key');
}
