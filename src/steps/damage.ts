/** What independent witnesses said about the old site, boiled down. */
export interface Observations {
  /** Databases of the old site: `writes` = a session was opened and it is no standby. */
  readonly databases: ReadonlyArray<{ readonly name: string; readonly answers: boolean; readonly writes: boolean }>;
  /** Endpoints that users reach. */
  readonly endpoints: ReadonlyArray<{ readonly what: string; readonly alive: boolean }>;
  /** Archives of the old site: their last heartbeats are younger than three of their intervals. */
  readonly archives: ReadonlyArray<{ readonly database: string; readonly moves: boolean }>;
  /** `answers`: there is something, even if it cannot be used, as an empty vault that was never initialised. */
  readonly vaults: ReadonlyArray<{
    readonly name: string;
    readonly ofOldSite: boolean;
    readonly usable: boolean;
    readonly answers: boolean;
  }>;
  /** Statements of `verification.checks` that a living primary answered with no. */
  readonly failedChecks: readonly string[];
  /** What clients are sent to, by traffic name; empty = nothing could be seen. */
  readonly names: ReadonlyArray<{ readonly name: string; readonly pointsToOldSite: boolean | undefined }>;
}

export const scopes = [
  'site-lost',
  'partition',
  'corruption',
  'degraded',
  'vault-lost',
  'nothing-wrong',
  'unknown',
] as const;
export type Scope = (typeof scopes)[number];

export interface Damage {
  readonly scope: Scope;
  /** In one sentence, for people. */
  readonly meaning: string;
  /** What fits, as a command or in words. */
  readonly proposal: string;
  readonly reasons: readonly string[];
}

/**
 * What has happened, judged by what was seen from more than one side. Pure. The order of the questions matters: damage inside a living
 * database is found before anything else, because moving it would only move the damage.
 */
export function classifyDamage(seen: Observations): Damage {
  const { databases, endpoints, archives, vaults, failedChecks, names } = seen;
  const reasons = [
    ...databases.map(
      ({ name, answers, writes }) =>
        `database ${name} ${answers ? (writes ? 'answers and takes writes' : 'answers, but takes no writes') : 'does not answer from here'}`,
    ),
    ...endpoints.map(({ what, alive }) => `${what} ${alive ? 'answers' : 'does not answer from here'}`),
    ...archives.map(({ database, moves }) => `the archive of ${database} ${moves ? 'moves' : 'stands still'}`),
    ...vaults
      .filter(({ usable }) => !usable)
      .map(({ name, answers }) => `vault ${name} ${answers ? 'answers, but cannot be used' : 'does not answer'}`),
    ...failedChecks.map((check) => `a check of the data says no: ${check}`),
    ...names
      .filter(({ pointsToOldSite }) => pointsToOldSite === false)
      .map(({ name }) => `${name} does not point to the old site`),
  ];
  const conclude = (scope: Scope, meaning: string, proposal: string): Damage => ({ scope, meaning, proposal, reasons });
  const dead = databases.filter(({ answers }) => !answers);
  const silent = dead.length === databases.length && endpoints.every(({ alive }) => !alive);
  const moving = archives.filter(({ moves }) => moves);
  const lost = vaults.filter(({ usable }) => !usable);

  if (failedChecks.length > 0) {
    return conclude(
      'corruption',
      'the old site lives, and its data is not right: what is wrong was replicated to every copy of now',
      'Find out when it began; "dr failover --runbook corruption --at TIME" brings back the moment before. A failover to the latest moment would keep the damage.',
    );
  }
  if (silent && databases.length + endpoints.length > 0 && moving.length > 0) {
    return conclude(
      'partition',
      'nothing of the old site answers from here, but its archive moves: it lives behind a broken network',
      'Mend the network. A failover now would make two primaries: it stops at the fence unless the old site is stopped first.',
    );
  }
  if (silent && databases.length + endpoints.length > 0) {
    const vaultSilent = vaults.some(({ ofOldSite, answers }) => ofOldSite && !answers);
    const witness = [
      ...(archives.length > 0 ? ['no heartbeat of its archive comes'] : []),
      ...(vaultSilent ? ['its vault does not answer'] : []),
    ];
    return witness.length > 0
      ? conclude(
          'site-lost',
          `nothing of the old site answers from here, and ${witness.join(', and ')}`,
          '"dr failover"',
        )
      : conclude(
          'unknown',
          'nothing of the old site answers from here, and no archive can tell whether it lives elsewhere',
          'Ask somebody at the site. A failover needs the old primary stopped, or its acceptance by name.',
        );
  }
  if (
    dead.length > 0 ||
    databases.some(({ answers, writes }) => answers && !writes) ||
    endpoints.some(({ alive }) => !alive)
  ) {
    return conclude(
      'degraded',
      'a part of the old site lives and a part does not',
      'Mend it there if that is quicker; "dr switchover" moves what lives without loss, "dr failover" what does not, once it is stopped.',
    );
  }
  if (lost.length > 0) {
    return conclude(
      'vault-lost',
      `the system works; ${lost.map(({ name }) => `vault ${name}`).join(', ')} cannot be used`,
      'Nothing has to move. Make the vault reachable, or "dr vault enrol" it anew; the daemon copies what it lacks.',
    );
  }
  return conclude(
    'nothing-wrong',
    'everything that was asked answers',
    'Nothing has to move; "dr switchover" if you want it to.',
  );
}
