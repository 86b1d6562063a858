import type { DatabaseRecoveryPoint } from '../../backup/recover-database.ts';
import { fetchWalFile } from '../../backup/wal/reader.ts';
import { DrError } from '../../base/errors.ts';
import type { Progress } from '../../base/progress.ts';
import { formatLsn, type Lsn, segmentName, segmentStart } from '../../postgres/lsn.ts';
import { type PageSizes, recordEnd, recordKind } from '../../postgres/recovery-target.ts';
import type { DatabasePlace } from '../ports.ts';
import type { RecoveryParts } from '../recovery-point.ts';
import type { ServerLook } from './volume-server.ts';

/** A server that stands still so long, with WAL before it that it should replay, cannot read it, milliseconds. */
const STUCK_MS = 60_000;

/** How far a server that dr only sees by SQL has come on its way to the target. */
export class Replay {
  readonly #point: DatabaseRecoveryPoint;
  readonly #parts: RecoveryParts;
  #last: Lsn | undefined;
  #since = 0;
  #segment: { readonly name: string; readonly content: Buffer } | undefined;

  constructor(point: DatabaseRecoveryPoint, parts: RecoveryParts) {
    this.#point = point;
    this.#parts = parts;
  }

  /** Something else may answer at the address: the old primary, another database. */
  requireOurs(look: ServerLook, place: DatabasePlace): void {
    const { systemId } = this.#point.database;
    if (look.systemId === systemId && look.inRecovery) return;
    const what =
      look.systemId === systemId
        ? 'is a writable primary already'
        : `is another database system (${look.systemId}, not ${systemId})`;
    throw new DrError('refused', `what answers at the address of ${place.name} ${what}`, {
      where: `databases.${place.name}.recover.${place.site}.url`,
      next: 'Correct the URL: it must lead to the Service of the StatefulSet, inside the cluster of that site.',
    });
  }

  /**
   * `at-end`: all that was laid out is replayed, and the target, which lies in its covered time, was not met. The server itself says what that
   * is, and whether it has a target: the archive, and with it the plan that can be made now, may have changed since.
   */
  async judge(look: ServerLook, nowMs: number, signal: AbortSignal): Promise<'reached' | 'replaying' | 'at-end'> {
    const endLsn = look.archiveEnd ?? this.#point.plan.endLsn;
    if (look.paused) {
      if (look.hasTarget && !(await this.#isAtSettings(look, signal))) return 'reached';
      throw new DrError('check-failed', 'the replay was paused, although its target is not reached', {
        where: `at ${formatLsn(look.lsn)}`,
        next: 'A setting is lower than at the original (its log names it): raise it under "parameters" of this recovery target.',
      });
    }
    if (look.lsn !== this.#last) {
      this.#last = look.lsn;
      this.#since = nowMs;
    }
    if (await this.#hasReplayed(look, endLsn, signal)) return look.hasTarget ? 'at-end' : 'reached';
    if (nowMs - this.#since < STUCK_MS) return 'replaying';
    throw new DrError(
      'corrupt',
      `the server stands still at ${formatLsn(look.lsn)}, and the archive reaches ${formatLsn(endLsn)}`,
      {
        where: segmentName(this.#point.plan.timeline, look.lsn, this.#point.database.segmentBytes),
        next: 'Read the log of its pod. Recover from another vault, or to a target before this position.',
      },
    );
  }

  progress({ lsn, archiveEnd }: ServerLook, name: string): Progress {
    const { startLsn, endLsn: planned } = this.#point.plan;
    const endLsn = archiveEnd ?? planned;
    const [done, total] = [Math.max(0, Number(lsn - startLsn)), Math.max(0, Number(endLsn - startLsn))];
    return { task: `replay ${name}`, done, total, unit: 'bytes', detail: formatLsn(lsn) };
  }

  /** Whether nothing lies between the position and the end of the archive but a record that is not complete. */
  async #hasReplayed(look: ServerLook, endLsn: Lsn, signal: AbortSignal): Promise<boolean> {
    if (look.lsn >= endLsn) return true;
    // A record spans few pages: far from the end there is more to come.
    if (endLsn - look.lsn > BigInt(this.#point.database.segmentBytes) * 4n) return false;
    const end = await recordEnd(look.lsn, this.#sizes(look), this.#reader(signal));
    return end !== undefined && end > endLsn;
  }

  /** Whether it stands at a record that changes settings of the original, which pauses a standby too. What cannot be read is none. */
  async #isAtSettings(look: ServerLook, signal: AbortSignal): Promise<boolean> {
    const kind = await recordKind(look.lsn, this.#sizes(look), this.#reader(signal)).catch(() => undefined);
    signal.throwIfAborted();
    return kind === 'parameter-change';
  }

  #sizes({ walBlockBytes }: ServerLook): PageSizes {
    return { pageBytes: walBlockBytes, segmentBytes: this.#point.database.segmentBytes };
  }

  #reader(signal: AbortSignal): (at: Lsn) => Promise<number> {
    const bytes = BigInt(this.#point.database.segmentBytes);
    return async (at) => (await this.#segmentOf(at, signal)).readUInt32LE(Number(at % bytes));
  }

  async #segmentOf(at: Lsn, signal: AbortSignal): Promise<Buffer> {
    const { database, plan, manifest } = this.#point;
    const { stores, keyRing } = this.#parts;
    const name = segmentName(plan.timeline, segmentStart(at, database.segmentBytes), database.segmentBytes);
    if (this.#segment?.name === name) return this.#segment.content;
    for (const store of stores) {
      const content = await fetchWalFile(store, keyRing, database.systemId, name, signal).catch((error: unknown) => {
        if (signal.aborted || store === stores.at(-1)) throw error;
        return undefined;
      });
      if (content === undefined) continue;
      this.#segment = { name, content };
      return content;
    }
    throw new DrError('not-found', `no vault has the WAL segment ${name} of ${manifest.resource}`, { where: name });
  }
}
