import { messageOf } from '../base/errors.ts';
import { formatDuration } from '../base/units.ts';
import type { LeaderState } from './leader.ts';
import type { RoleState } from './role.ts';
import type { ServiceState } from './service.ts';
import type { VaultState } from './vault-watch.ts';
import type { WalService } from './wal-service.ts';

/** One thing that the daemon needs, and whether it has it. */
export interface Dependency {
  readonly name: string;
  readonly ok: boolean;
  /** True: without it the daemon is not ready. */
  readonly needed: boolean;
  /** Why it is not, or how it is. */
  readonly detail: string;
}

export interface Readiness {
  readonly ready: boolean;
  readonly role: RoleState['role'];
  readonly dependencies: readonly Dependency[];
}

/** Ready = at least one vault answers, the role is known and, at the active site, every database's WAL is streamed. */
export function readinessOf(facts: {
  readonly vaults: readonly VaultState[];
  readonly role: RoleState;
  /** Undefined: there is only one replica. */
  readonly leader?: LeaderState | undefined;
  readonly archivers: readonly Pick<WalService, 'resource' | 'status'>[];
  readonly services: readonly ServiceState[];
  readonly stopping: boolean;
}): Readiness {
  const { vaults, role, leader, archivers, services, stopping } = facts;
  const answering = vaults.filter(({ up }) => up === true).length;
  const dependencies: Dependency[] = [
    {
      name: 'vaults',
      ok: answering > 0,
      needed: true,
      detail: `${answering} of ${vaults.length} answer`,
    },
    ...vaults.map(({ vault, up, error }): Dependency => {
      const detail = up === undefined ? 'not asked yet' : up ? 'answers' : messageOf(error);
      return { name: `vault ${vault}`, ok: up === true, needed: false, detail };
    }),
    {
      name: 'role',
      ok: role.role !== 'unknown',
      needed: true,
      detail: roleDetail(role),
    },
    ...(leader ? [leaderDependency(leader)] : []),
    ...archivers.map((archiver) => walDependency(archiver)),
    ...services
      .filter(({ state, failures }) => state === 'waiting' || failures > 0)
      .map(
        (service): Dependency => ({
          name: `service ${service.name}`,
          ok: service.state === 'running',
          needed: false,
          detail: `${service.state} after ${service.failures} failures: ${messageOf(service.lastError)}`,
        }),
      ),
  ];
  if (stopping) dependencies.push({ name: 'daemon', ok: false, needed: true, detail: 'it is stopping' });
  const ready = dependencies.every(({ ok, needed }) => ok || !needed);
  return { ready, role: role.role, dependencies };
}

function roleDetail({ role, active, error }: RoleState): string {
  const doubt = error === undefined ? '' : `; not confirmed: ${messageOf(error)}`;
  if (role === 'unknown' || !active) return `no vault has said which site is active${doubt}`;
  const since = `since ${active.since} (generation ${active.generation})`;
  return role === 'active' ? `active ${since}${doubt}` : `stands by; ${active.site} is active ${since}${doubt}`;
}

/** A replica that stands by is ready; without API server both are, because what they serve does not need it. */
function leaderDependency({ role, holder, generation, error }: LeaderState): Dependency {
  const doubt = error === undefined ? '' : `: ${messageOf(error)}`;
  const details: Record<LeaderState['role'], string> = {
    leader: `this replica leads (generation ${generation})`,
    standby: holder === '' ? 'stands by; nobody leads' : `stands by; ${holder} leads (generation ${generation})`,
    lapsed: `led (generation ${generation}), not confirmed any more`,
    unknown: 'the Lease has not been read yet',
  };
  const ok = role === 'leader' || role === 'standby';
  // A replica that was never told does nothing: that is to be seen.
  return { name: 'leader', ok, needed: role === 'unknown', detail: details[role] + doubt };
}

function walDependency(archiver: Pick<WalService, 'resource' | 'status'>): Dependency {
  const name = `wal ${archiver.resource}`;
  const now = archiver.status();
  if (!now) return { name, ok: false, needed: true, detail: 'starting' };
  const age = now.ageMs === undefined ? '' : `, durable up to ${formatDuration(now.ageMs)} ago`;
  const behind = now.vaults.filter(({ state }) => state !== 'current').map((vault) => `${vault.name} ${vault.state}`);
  const details = [now.state + age, ...behind, ...(now.slot.atRisk ? ['slot at risk'] : [])];
  if (now.state !== 'streaming' && now.lastError !== undefined) details.push(now.lastError);
  return { name, ok: now.state === 'streaming', needed: true, detail: details.join('; ') };
}
