import { createHash } from 'node:crypto';
import type { Clock } from '../base/clock.ts';
import { DrError, messageOf } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { redact } from '../base/redact.ts';
import { retry } from '../base/retry.ts';
import { layout, RUN_FORMAT_VERSION } from '../vault/layout.ts';
import { decodeRecord, encodeRecord } from '../vault/record.ts';
import type { ObjectStore } from '../vault/store.ts';
import { entrySchema, type JournalEntry, type RunEvent } from './events.ts';
import { apply, newRun, type RunState } from './state.ts';

export interface JournalOptions {
  /** The recovery site's vault: the journal is what lies here. */
  readonly store: ObjectStore;
  /** Other vaults that get copies as far as they can be reached. */
  readonly copies: readonly ObjectStore[];
  readonly runId: string;
  /** `user@host pid 4711`. */
  readonly by: string;
  /** A random word for this process's hold on the run. */
  readonly executor: string;
  readonly clock: Clock;
  readonly log: Log;
}

/** Said after every entry that has become durable. */
export type OnEntry = (entry: JournalEntry, state: RunState) => void;

/**
 * The journal of one run: numbered objects that are only ever created, each holding the digest of the one before it.
 * An event counts once its object is durable. A number that is taken means that somebody else executes this run.
 */
export class Journal {
  readonly runId: string;
  readonly #options: JournalOptions;
  readonly #onEntry: OnEntry;
  readonly #copying = new Set<Promise<void>>();
  readonly #uncopied = new Set<string>();
  #state: RunState = newRun;
  #entries: JournalEntry[] = [];
  #previous = '';
  #tail: Promise<unknown> = Promise.resolve();
  #broken: unknown;

  private constructor(options: JournalOptions, onEntry: OnEntry) {
    this.runId = options.runId;
    this.#options = options;
    this.#onEntry = onEntry;
  }

  /** A journal that holds nothing yet. */
  static begin(options: JournalOptions, onEntry: OnEntry = () => {}): Journal {
    return new Journal(options, onEntry);
  }

  /** Reads a journal and checks every link of it. Throws `not-found`, `corrupt`, `refused` (newer format). */
  static async open(options: JournalOptions, onEntry: OnEntry = () => {}): Promise<Journal> {
    const journal = new Journal(options, onEntry);
    const read = await readJournal(options.store, options.runId);
    journal.#entries = [...read.entries];
    journal.#state = read.state;
    journal.#previous = read.lastDigest;
    return journal;
  }

  get state(): RunState {
    return this.#state;
  }

  /** Why nothing more can be appended; undefined while all is well. */
  get failure(): unknown {
    return this.#broken;
  }

  get entries(): readonly JournalEntry[] {
    return this.#entries;
  }

  /** SHA-256 (hex) of the newest entry: whoever keeps it can tell later whether the journal is still the same. */
  get lastDigest(): string {
    return this.#previous;
  }

  /**
   * Makes one event durable and applies it. Appends are in order, one at a time. After a failure nothing more is
   * appended: the state here may no longer be the state there.
   */
  async append(event: RunEvent): Promise<void> {
    const mine = this.#tail.then(() => this.#append(event));
    this.#tail = mine.catch(() => {});
    await mine;
  }

  /** Waits for the copies in the other vaults; failures have been logged. */
  async settle(): Promise<void> {
    await Promise.all(this.#copying);
  }

  async #append(event: RunEvent): Promise<void> {
    if (this.#broken !== undefined) throw this.#broken;
    const { store, by, executor, clock, runId } = this.#options;
    const number = this.#entries.length + 1;
    const at = new Date(clock.now()).toISOString();
    const head = { format: RUN_FORMAT_VERSION, runId, number, previous: this.#previous, at, by, executor };
    const entry = entrySchema.parse({ ...head, event: withoutSecrets(event) });
    const state = apply(this.#state, entry);
    const bytes = encodeRecord(entry);
    try {
      await this.#store(layout.runEntry(runId, number), bytes);
    } catch (error) {
      this.#broken = error;
      throw error;
    }
    this.#previous = digestOf(bytes);
    this.#entries.push(entry);
    this.#state = state;
    for (const copy of this.#options.copies)
      if (copy !== store) this.#copy(copy, layout.runEntry(runId, number), bytes);
    this.#onEntry(entry, state);
  }

  async #store(key: string, bytes: Buffer): Promise<void> {
    const { store, clock, log } = this.#options;
    const result = await retry(async () => await store.create(key, bytes), {
      attempts: 6,
      baseMs: 500,
      maxMs: 8000,
      clock,
      onRetry: (error, attempt) =>
        log.warn({ error, key, attempt, vault: store.name }, 'The journal cannot be written; trying again.'),
    });
    // A try whose answer was lost may have written it: then what lies there is ours to the last byte.
    if (result === 'exists' && !(await store.read(key)).equals(bytes)) {
      throw new DrError(
        'lease-held',
        `another process goes on with run ${this.runId}: it wrote the next journal entry`,
        {
          where: `${store.location}/${key}`,
          next: `Look at it with "dr runs ${this.runId}"; let that process finish, or end it and run this command again.`,
        },
      );
    }
  }

  #copy(store: ObjectStore, key: string, bytes: Buffer): void {
    const copying: Promise<void> = store
      .create(key, bytes, { signal: AbortSignal.timeout(15_000) })
      .then(() => {})
      .catch((error: unknown) => {
        const facts = { vault: store.name, key, reason: messageOf(error) };
        // Once is news; the report is stored there at the end, or its lack is said then.
        if (this.#uncopied.has(store.name)) this.#options.log.debug(facts, 'A copy of the journal is missing.');
        else this.#options.log.warn(facts, 'This vault gets no copy of the journal for now.');
        this.#uncopied.add(store.name);
      })
      .finally(() => this.#copying.delete(copying));
    this.#copying.add(copying);
  }
}

export interface ReadJournal {
  readonly entries: readonly JournalEntry[];
  readonly state: RunState;
  readonly lastDigest: string;
}

/** Reads the journal of a run from any vault and checks numbers, hash chain and every transition. */
export async function readJournal(store: ObjectStore, runId: string, signal?: AbortSignal): Promise<ReadJournal> {
  const folder = `${layout.run(runId)}journal/`;
  const entries: JournalEntry[] = [];
  let state = newRun;
  let previous = '';
  for await (const { key } of store.list(folder, { signal })) {
    const where = `${store.location}/${key}`;
    const bytes = await store.read(key, undefined, { signal });
    const damaged = (reason: string) =>
      new DrError('corrupt', `the journal of run ${runId} is damaged: ${reason}`, {
        where,
        next: 'Read it from another vault ("dr runs ID --vault NAME"); start a new run with --new to go on.',
      });
    const record = decodeRecord(bytes, 'a journal entry', where);
    if (typeof record.format === 'number' && record.format > RUN_FORMAT_VERSION) {
      throw new DrError('refused', `run ${runId} was written by a newer dr (format ${record.format})`, {
        where,
        next: 'Use that version of dr, or a newer one.',
      });
    }
    const parsed = entrySchema.safeParse(record);
    if (!parsed.success) throw damaged(`not an entry: ${parsed.error.issues[0]?.message}`);
    const entry = parsed.data;
    if (entry.runId !== runId || key !== layout.runEntry(runId, entry.number))
      throw damaged('the entry belongs elsewhere');
    if (entry.number !== entries.length + 1) throw damaged(`entry ${entries.length + 1} is missing`);
    if (entry.previous !== previous) throw damaged('it does not follow the entry before it');
    state = apply(state, entry);
    previous = digestOf(bytes);
    entries.push(entry);
  }
  if (entries.length === 0) {
    throw new DrError('not-found', `vault ${store.name} has no run ${runId}`, {
      where: `${store.location}/${folder}`,
      next: 'List the runs with "dr runs".',
    });
  }
  return { entries, state, lastDigest: previous };
}

/** Ids of the runs in a vault, newest first. */
export async function listRunIds(store: ObjectStore, signal?: AbortSignal): Promise<string[]> {
  return (await store.folders('runs/', { signal })).reverse();
}

/**
 * What people and servers worded may quote a secret. Outputs hold none by contract and are left alone: a name in them that
 * equals some password has to survive, because a resumed run works with it.
 */
function withoutSecrets(event: RunEvent): RunEvent {
  const error = 'error' in event ? event.error : undefined;
  return {
    ...event,
    ...('evidence' in event ? { evidence: event.evidence.map(redact) } : {}),
    ...(error
      ? {
          error: {
            ...error,
            message: redact(error.message),
            ...(error.where === undefined ? {} : { where: redact(error.where) }),
            ...(error.next === undefined ? {} : { next: redact(error.next) }),
          },
        }
      : {}),
    ...('reason' in event ? { reason: redact(event.reason) } : {}),
  } as RunEvent;
}

function digestOf(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}
