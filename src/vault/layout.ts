/**
 * The format of backups (manifest and index) and of the vaults that hold them; older ones are read. Names that sort in time order let a
 * listing answer "newest" by its end. `docs/format.md` is the description for people.
 */
export const FORMAT_VERSION = 2;

/** The format of what runs of runbooks write: journals, approvals, reports. */
export const RUN_FORMAT_VERSION = 1;

export const layout = {
  /** Says that this prefix is a `dr` vault, of which format and of which system. Created at enrolment. */
  marker: 'dr-vault.json',
  format: 'FORMAT.md',
  restoreScript: 'dr-restore.mjs',
  /** A data key, wrapped for the recipients; a higher generation replaces a lower one. */
  key: (keyId: string, generation = 1) => `keys/${keyId}/${pad(generation, 6)}.json`,
  /** All generations of one data key. */
  keyGenerations: (keyId: string) => `keys/${keyId}/`,
  manifests: (resource?: string) => (resource === undefined ? 'manifests/' : `manifests/${resource}/`),
  manifest: (resource: string, backupId: string) => `manifests/${resource}/${backupId}.json`,
  index: (resource: string, backupId: string) => `indexes/${resource}/${backupId}`,
  part: (resource: string, backupId: string, number: number) => `parts/${resource}/${backupId}/${pad(number, 6)}`,
  /** All WAL of one PostgreSQL system. */
  walSystem: (systemId: string) => `wal/${systemId}/`,
  /** All WAL of one timeline of one PostgreSQL system. `timeline` as 8 hexadecimal digits. */
  wal: (systemId: string, timeline: number) => `wal/${systemId}/${hex8(timeline)}/`,
  /** A complete segment; `segment` is PostgreSQL's 24-digit file name. */
  walSegment: (systemId: string, timeline: number, segment: string) => `wal/${systemId}/${hex8(timeline)}/${segment}`,
  /** Bytes `offset` to `end` of a segment that is still open (or never became whole); the range is part of the name. */
  walPiece: (systemId: string, timeline: number, segment: string, offset: number, end: number) =>
    `wal/${systemId}/${hex8(timeline)}/${segment}.${hex8(offset)}-${hex8(end)}`,
  walHistory: (systemId: string, timeline: number) => `wal/${systemId}/${hex8(timeline)}.history`,
  /** How far the archive of a database reaches, with the server's clock: a hint, overwritten. */
  walHeartbeat: (resource: string) => `heartbeats/${resource}.json`,
  /** When retention was last done, and with what outcome: a hint, overwritten. */
  retentionDone: 'hints/retention.json',
  /** What the last check of a vault found and the last repair mended: a hint, overwritten, in every vault. */
  vaultCare: (vault: string) => `hints/care-${vault}.json`,
  run: (runId: string) => `runs/${runId}/`,
  runEntry: (runId: string, number: number) => `runs/${runId}/journal/${pad(number, 6)}.json`,
  /** A person's answer to a step that needs approval; `step` may hold characters that no key may. */
  runApproval: (runId: string, step: string) =>
    `runs/${runId}/approvals/${step.replace(/[^A-Za-z0-9._=-]/g, '=')}.json`,
  runReport: (runId: string, extension: 'json' | 'md' | 'html') => `runs/${runId}/report.${extension}`,
  lease: (name: string) => `leases/${name}/`,
  leaseGeneration: (name: string, generation: number) => `leases/${name}/${pad(generation, 10)}.json`,
  activeSite: (generation: number) => `records/active/${pad(generation, 10)}.json`,
  activeSites: 'records/active/',
  /** Which place a vault's name means; the highest generation counts. */
  vaultRecords: (name: string) => `records/vaults/${name}/`,
  vaultRecord: (name: string, generation: number) => `records/vaults/${name}/${pad(generation, 10)}.json`,
  holds: 'holds/',
  /** A declared incident: while one is not cleared, nothing is deleted in any vault. */
  hold: (id: string) => `holds/${id}.json`,
  holdCleared: (id: string) => `holds/${id}.cleared.json`,
  verifications: (resource: string) => `verifications/${resource}/`,
  verification: (resource: string, id: string) => `verifications/${resource}/${id}.json`,
  /** The configuration file and the runbooks as they were, sealed, by digest. */
  ownConfiguration: (id: string) => `configuration/${id}`,
} as const;

/** An identifier that sorts by time: `20261123T050102123Z-3f9a1c`. */
export function timedId(nowMs: number, random: string): string {
  return `${new Date(nowMs).toISOString().replace(/[-:.]/g, '')}-${random}`;
}

/** The time in an identifier of `timedId`, milliseconds since 1970; undefined if it is none. */
export function timeOfId(id: string): number | undefined {
  const match = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)(\d{3})Z-/.exec(id);
  if (!match) return undefined;
  const [, year, month, day, hour, minute, second, ms] = match;
  const time = Date.parse(`${year}-${month}-${day}T${hour}:${minute}:${second}.${ms}Z`);
  return Number.isNaN(time) ? undefined : time;
}

function pad(value: number, digits: number): string {
  return String(value).padStart(digits, '0');
}

function hex8(value: number): string {
  return value.toString(16).toUpperCase().padStart(8, '0');
}
