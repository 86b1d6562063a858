import { messageOf } from '../../base/errors.ts';
import { formatLsn, type Lsn } from '../../postgres/lsn.ts';
import type { ObjectStore } from '../../vault/store.ts';
import type { WalGap, WalSession } from './session.ts';
import type { SlotHealth } from './slot.ts';

/** How the archive of one database stands now; LSNs as PostgreSQL writes them. */
export interface WalArchiverStatus {
  readonly state: 'connecting' | 'streaming' | 'stopped' | 'failed';
  readonly systemId: string | undefined;
  readonly timeline: number | undefined;
  /** End of WAL on the server as it last said. */
  readonly serverLsn: string | undefined;
  readonly receivedLsn: string | undefined;
  /** Durable as the policy promises, and so acknowledged. */
  readonly durableLsn: string | undefined;
  /** WAL on the server that is not durable as the policy promises, bytes. */
  readonly lagBytes: number | undefined;
  /** The data loss, in milliseconds, if the site died now and the best vault survived; undefined while not known. */
  readonly ageMs: number | undefined;
  readonly vaults: readonly WalVaultStatus[];
  readonly slot: { readonly name: string } & Partial<SlotHealth>;
  /** WAL lost for ever since the start: recovery cannot cross these. */
  readonly gaps: ReadonlyArray<{ readonly timeline: number; readonly from: string; readonly to: string }>;
  readonly retainedBytes: number;
  readonly lastError: string | undefined;
}

export interface WalVaultStatus {
  readonly name: string;
  /** `unknown` before the archive was opened. */
  readonly state: 'current' | 'behind' | 'unreachable' | 'unknown';
  readonly durableLsn: string | undefined;
  readonly lagBytes: number | undefined;
  /** The data loss, in milliseconds, if the site died now and only this vault survived. */
  readonly ageMs: number | undefined;
  /** WAL that this vault lacks though later WAL is there; it is copied from another vault as soon as possible. */
  readonly missing: { readonly from: string; readonly to: string } | undefined;
  readonly lastError: string | undefined;
}

const nothingKnown = {
  state: 'unknown',
  durableLsn: undefined,
  lagBytes: undefined,
  ageMs: undefined,
  missing: undefined,
  lastError: undefined,
} as const;

export function statusOf(facts: {
  readonly state: WalArchiverStatus['state'];
  readonly systemId: string | undefined;
  readonly stores: readonly ObjectStore[];
  readonly session: WalSession | undefined;
  readonly serverEnd: Lsn | undefined;
  readonly slot: { readonly name: string; readonly health: SlotHealth | undefined };
  readonly gaps: readonly WalGap[];
  readonly lastError: unknown;
  readonly nowMs: number;
}): WalArchiverStatus {
  const { session, serverEnd, nowMs } = facts;
  const position = session?.position;
  const behind = (durable: Lsn | undefined) =>
    durable === undefined || durable === 0n || serverEnd === undefined
      ? undefined
      : Math.max(0, Number(serverEnd - durable));
  const vaults = facts.stores.map(({ name }): WalVaultStatus => {
    const lane = session?.lanes.find(({ store }) => store.name === name);
    if (!lane) return { ...nothingKnown, name };
    const durable = lane.hasEntered ? lane.durable : undefined;
    const moment = session?.coveredBy(lane);
    return {
      name,
      state: !lane.isHealthy ? 'unreachable' : lane.hole ? 'behind' : 'current',
      durableLsn: durable === undefined ? undefined : formatLsn(durable),
      lagBytes: behind(durable),
      ageMs: moment && Math.max(0, nowMs - moment.localMs),
      missing: lane.hole && { from: formatLsn(lane.hole.start), to: formatLsn(lane.hole.end) },
      lastError: lane.lastError,
    };
  });
  const ages = vaults.flatMap(({ ageMs }) => (ageMs === undefined ? [] : [ageMs]));
  const durable = session?.durable;
  return {
    state: facts.state,
    systemId: facts.systemId,
    timeline: position?.timeline,
    serverLsn: serverEnd === undefined ? undefined : formatLsn(serverEnd),
    receivedLsn: position && formatLsn(position.lsn),
    durableLsn: durable === undefined || durable === 0n ? undefined : formatLsn(durable),
    lagBytes: behind(durable),
    ageMs: ages.length > 0 ? Math.min(...ages) : undefined,
    vaults,
    slot: { name: facts.slot.name, ...facts.slot.health },
    gaps: facts.gaps.map(({ timeline, from, to }) => ({ timeline, from: formatLsn(from), to: formatLsn(to) })),
    retainedBytes: session?.retainedBytes ?? 0,
    lastError: facts.lastError === undefined ? undefined : messageOf(facts.lastError),
  };
}
