import { hostname } from 'node:os';
import { z } from 'zod';
import { messageOf } from '../../base/errors.ts';
import type { Log } from '../../base/log.ts';
import { formatLsn } from '../../postgres/lsn.ts';
import { layout } from '../../vault/layout.ts';
import { decodeRecord, encodeRecord } from '../../vault/record.ts';
import type { ObjectStore } from '../../vault/store.ts';
import type { WalSession } from './session.ts';

const heartbeatSchema = z.object({
  format: z.literal(1),
  resource: z.string(),
  systemId: z.string(),
  timeline: z.int().positive(),
  /** Everything before this is durable in the vault that this object lies in. */
  lsn: z.string(),
  /** The archiver has received everything before this. */
  receivedLsn: z.string(),
  /** By the server's clock: every commit before this moment is durable in this vault; 0 = not known yet. */
  serverClockMs: z.number().nonnegative(),
  /** By the archiver's clock: when this was written. */
  writtenAt: z.iso.datetime(),
  /** WAL is being streamed right now. */
  connected: z.boolean(),
  site: z.string(),
  host: z.string(),
  /** The next one is due after this many milliseconds. */
  everyMs: z.number().positive(),
});

/** How far the archive of a database reaches in one vault, and that its archiver lives. A hint: nothing depends on it. */
export type WalHeartbeat = z.infer<typeof heartbeatSchema>;

/** Tells every vault how far it reaches. A vault that does not take it is passed over: its age then shows from outside. */
export async function writeHeartbeats(
  session: WalSession,
  facts: {
    readonly resource: string;
    readonly systemId: string;
    readonly connected: boolean;
    readonly site: string;
    readonly everyMs: number;
    readonly nowMs: number;
    readonly log: Log;
    readonly signal: AbortSignal;
  },
): Promise<void> {
  const { log, signal, nowMs, ...known } = facts;
  const { timeline, lsn } = session.position;
  await Promise.all(
    session.lanes.map(async (lane) => {
      if (!lane.hasEntered || lane.durable === 0n) return;
      const heartbeat: WalHeartbeat = {
        format: 1,
        ...known,
        timeline,
        lsn: formatLsn(lane.durable),
        receivedLsn: formatLsn(lsn),
        serverClockMs: session.coveredBy(lane)?.serverMs ?? 0,
        writtenAt: new Date(nowMs).toISOString(),
        host: hostname(),
      };
      try {
        await lane.store.overwrite(layout.walHeartbeat(known.resource), encodeRecord(heartbeat), { signal });
      } catch (error) {
        log.debug({ vault: lane.store.name, error: messageOf(error) }, 'heartbeat not written');
      }
    }),
  );
}

/** The heartbeat of a database in this vault; undefined if there is none that can be read. Throws what the store throws otherwise. */
export async function readWalHeartbeat(
  store: ObjectStore,
  resource: string,
  signal?: AbortSignal,
): Promise<WalHeartbeat | undefined> {
  const key = layout.walHeartbeat(resource);
  if (!(await store.stat(key, { signal }))) return undefined;
  const record = decodeRecord(
    await store.read(key, undefined, { signal }),
    'the heartbeat',
    `${store.location}/${key}`,
  );
  const parsed = heartbeatSchema.safeParse(record);
  return parsed.success ? parsed.data : undefined;
}
