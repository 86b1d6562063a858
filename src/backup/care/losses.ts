import { DrError } from '../../base/errors.ts';
import { timeOfId } from '../../vault/layout.ts';
import type { ObjectStore } from '../../vault/store.ts';
import { parseWalKey } from '../wal/names.ts';
import type { Examination } from './check-vault.ts';
import type { VaultProblem } from './check-vault-findings.ts';
import { type RecoveryWindow, recoverable } from './recovery-windows.ts';

/** A backup that no vault can restore any more. */
export interface LostBackup {
  readonly id: string;
  /** The moment it would have brought back, milliseconds since 1970; by its id where its manifest is lost as well. */
  readonly recoveryPointMs: number;
}

/** What is lost of one resource, whatever vault is asked of those that answer, and what remains. */
export interface Loss {
  readonly resource: string;
  readonly backups: readonly LostBackup[];
  /** Of a database: moments that no recovery reaches; without end where no later base backup is there yet. */
  readonly moments: ReadonlyArray<{ readonly fromMs: number; readonly toMs?: number }>;
  readonly remains: {
    readonly backups: number;
    readonly newest: { readonly id: string; readonly recoveryPointMs: number } | undefined;
    /** Of a database: moments that can be recovered to. */
    readonly windows: readonly RecoveryWindow[];
  };
  /** All of it in one sentence, for people. */
  readonly text: string;
}

interface Lost {
  readonly backups: Map<string, LostBackup>;
  moments: Loss['moments'];
  windows: readonly RecoveryWindow[] | undefined;
}

/**
 * What the problems that are left after a repair mean. `failed`: why each object was not mended; one for which no vault has a good copy
 * is lost. Nothing is said while a vault does not answer. Reads the vault that was repaired, which has by now whatever the others have.
 */
export async function findLosses(facts: {
  readonly store: ObjectStore;
  readonly last: Examination;
  readonly failed: ReadonlyMap<string, unknown>;
  readonly signal?: AbortSignal | undefined;
}): Promise<Loss[]> {
  const { store, last, failed, signal } = facts;
  // What a vault that does not answer has may bring everything back.
  if (last.uncompared.size > 0) return [];
  const { survey, users, databases, check } = last;
  const losses = new Map<string, Lost>();
  const of = (resource: string): Lost => {
    const known = losses.get(resource) ?? { backups: new Map(), moments: [], windows: undefined };
    losses.set(resource, known);
    return known;
  };
  const lose = (resource: string, id: string) => {
    const recoveryPointMs = survey.backups.get(resource)?.get(id)?.recoveryPointMs ?? timeOfId(id) ?? 0;
    of(resource).backups.set(id, { id, recoveryPointMs });
  };
  const lost = check.problems.filter((problem) => isLost(problem, failed.get(problem.key)));
  for (const { kind, key } of lost) {
    const manifest = kind === 'manifest' ? users.ofManifest(key) : undefined;
    if (manifest) lose(manifest.resource, manifest.id);
    const using = kind === 'content' ? users.of(key) : kind === 'key' ? users.ofKey(key.split('/')[1] ?? '') : [];
    for (const { resource, id } of using) lose(resource, id);
  }
  const isUsable = ({ resource, id }: { resource: string; id: string }) => !losses.get(resource)?.backups.has(id);
  const damagedWal = new Set(check.problems.flatMap(({ kind, key }) => (kind === 'wal' ? [key] : [])));
  const systems = new Set(lost.flatMap(({ kind, key }) => (kind === 'wal' ? [parseWalKey(key)?.systemId] : [])));
  for (const systemId of systems) {
    const bases = databases.filter((base) => base.systemId === systemId && isUsable(base));
    for (const resource of new Set(bases.map((base) => base.resource))) {
      const own = bases.filter((base) => base.resource === resource);
      const found = await recoverable(store, own, damagedWal, signal);
      for (const { id } of found.unusable) lose(resource, id);
      Object.assign(of(resource), { windows: found.windows, moments: gaps(found.windows, found.newestMs) });
    }
  }
  return [...losses].flatMap(([resource, { backups, moments, windows = [] }]) => {
    if (backups.size === 0 && moments.length === 0) return [];
    const left = [...(survey.backups.get(resource)?.values() ?? [])].filter(isUsable);
    const newest = left.sort((a, b) => a.recoveryPointMs - b.recoveryPointMs || (a.id < b.id ? -1 : 1)).at(-1);
    const remains = {
      backups: left.length,
      newest: newest && { id: newest.id, recoveryPointMs: newest.recoveryPointMs },
      windows,
    };
    const inOrder = [...backups.values()].sort((a, b) => (a.id < b.id ? -1 : 1));
    const loss = { resource, backups: inOrder, moments, remains };
    return [{ ...loss, text: describeLoss(loss) }];
  });
}

function isLost({ kind, state }: VaultProblem, error: unknown): boolean {
  if (state === 'unlisted') return false;
  // Every vault that answers was asked for the WAL of a hole.
  if (kind === 'wal' && state === 'missing') return true;
  return error instanceof DrError && error.kind === 'corrupt';
}

function gaps(windows: readonly RecoveryWindow[], newestMs: number): Loss['moments'] {
  const between = windows.flatMap(({ toMs }, i) => {
    const next = windows[i + 1];
    return next ? [{ fromMs: toMs, toMs: next.fromMs }] : [];
  });
  const lastMs = windows.at(-1)?.toMs;
  // There is WAL behind the last hole that no base backup leads to.
  return lastMs !== undefined && newestMs > lastMs ? [...between, { fromMs: lastMs }] : between;
}

function describeLoss({ resource, backups, moments, remains }: Omit<Loss, 'text'>): string {
  const time = (ms: number) => new Date(ms).toISOString();
  const lost = [
    ...(backups.length > 0 ? [`backups ${shortened(backups.map(({ id }) => id))}`] : []),
    ...moments.map(({ fromMs, toMs }) =>
      toMs === undefined
        ? `every moment after ${time(fromMs)} until the next base backup`
        : `the moments after ${time(fromMs)} and before ${time(toMs)}`,
    ),
  ].join('; ');
  const { newest, windows } = remains;
  const left = windows.map(({ fromMs, toMs }) => `${time(fromMs)} to ${time(toMs)}`);
  const rest =
    left.length > 0
      ? `it can be recovered to any moment from ${shortened(left)}`
      : newest
        ? `${remains.backups === 1 ? 'one backup remains' : `${remains.backups} backups remain`}, the newest of ${time(newest.recoveryPointMs)} (${newest.id})`
        : 'NOTHING REMAINS';
  return `${resource}: lost in every vault that answers: ${lost}; ${rest}`;
}

function shortened(words: readonly string[]): string {
  return words.length <= 5 ? words.join(', ') : `${words.slice(0, 5).join(', ')} and ${words.length - 5} more`;
}
