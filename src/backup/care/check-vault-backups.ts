import { forEachLimit } from '../../base/concurrency.ts';
import { DrError } from '../../base/errors.ts';
import { type Lsn, parseLsn } from '../../postgres/lsn.ts';
import { layout, timeOfId } from '../../vault/layout.ts';
import { sha256 } from '../../vault/seal.ts';
import { decodeManifest, type Manifest } from '../manifest.ts';
import { parsePartKey, type SurveyedBackup, surveyed, type VaultSurvey } from '../retention/collect-survey.ts';
import { BackupUsers, manifestOf, names } from './backup-users.ts';
import { type CheckContext, isGone } from './check-vault-findings.ts';
import { requireExact } from './check-vault-records.ts';
import { type Content, ExpectedParts } from './expected-parts.ts';

const MANIFESTS_IN_FLIGHT = 16;
/** Parts read at once, up to 16 MiB each. */
const PARTS_IN_FLIGHT = 3;
/** Objects asked for at once that no listing has shown. */
const LOOKS_IN_FLIGHT = 16;

/** The WAL that a base backup cannot do without, and where its recovery begins. */
export interface DatabaseNeed {
  readonly resource: string;
  readonly id: string;
  readonly systemId: string;
  readonly timeline: number;
  /** Beginning of the first segment that a recovery reads. */
  readonly from: Lsn;
  /** Recovery is consistent from here on. */
  readonly consistent: Lsn;
  /** The moment that belongs to `consistent`, milliseconds since 1970. */
  readonly consistentMs: number;
  readonly segmentBytes: number;
}

export interface BackupsFound {
  readonly survey: VaultSurvey;
  readonly users: BackupUsers;
  readonly databases: readonly DatabaseNeed[];
}

/** What the manifests name and was not found yet. */
interface Expected {
  readonly parts: ExpectedParts;
  /** By key. */
  readonly indexes: Map<string, Content>;
}

/**
 * Reads every manifest, then compares indexes and parts with what they say. Manifests are listed first: what a backup stores
 * meanwhile is then an orphan at worst, and never missing.
 */
export async function checkBackups(context: CheckContext): Promise<BackupsFound> {
  const { store, findings, signal } = context;
  const backups = new Map<string, Map<string, SurveyedBackup>>();
  const unreadable: Array<VaultSurvey['unreadable'][number]> = [];
  const databases: DatabaseNeed[] = [];
  const expected: Expected = { parts: new ExpectedParts(), indexes: new Map() };
  await forEachLimit(store.list(layout.manifests(), { signal }), MANIFESTS_IN_FLIGHT, async ({ key, size }) => {
    findings.listed(key, size);
    const [, resource, id] = /^manifests\/([^/]+)\/([^/]+)\.json$/.exec(key) ?? [];
    // Ids begin with a time: anything else was put there by somebody else, whatever is in it.
    if (resource === undefined || id === undefined || timeOfId(id) === undefined) {
      findings.stranger(key);
      return;
    }
    try {
      const bytes = await store.read(key, undefined, { signal });
      const manifest = requireManifest(key, bytes, `${store.location}/${key}`);
      const backup = surveyed(manifest, store);
      expect(expected, manifest);
      const need = needOf(manifest, backup);
      if (need) databases.push(need);
      const ofResource = backups.get(resource) ?? new Map<string, SurveyedBackup>();
      backups.set(resource, ofResource.set(id, backup));
    } catch (error) {
      if (await isGone(store, key, error, signal)) return;
      findings.damaged('manifest', key, error, names([{ resource, id }]));
      unreadable.push({ resource, id, key, error });
    }
  });
  const survey = { store, backups, unreadable };
  const users = new BackupUsers(survey);
  await checkContents(context, users, expected);
  return { survey, users, databases };
}

/** The manifest under a key. Throws `corrupt` for anything else, `refused` for a newer format. */
export function requireManifest(key: string, bytes: Uint8Array, where: string): Manifest {
  const manifest = decodeManifest(bytes, where);
  requireExact(bytes, where);
  if (layout.manifest(manifest.resource, manifest.id) === key) return manifest;
  throw new DrError('corrupt', `the manifest is that of backup ${manifest.id} of ${manifest.resource}`, { where });
}

function expect({ parts, indexes }: Expected, { resource, index, parts: named }: Manifest): void {
  indexes.set(index.key, { size: index.size, sha256: index.sha256, keyId: index.keyId });
  for (const { key, size, sha256, keyId } of named) {
    const at = parsePartKey(key);
    if (at) parts.add(resource, at.id, at.number, { size, sha256, keyId });
  }
}

function needOf(
  { database, recoveryPoint }: Manifest,
  { resource, id, wal }: SurveyedBackup,
): DatabaseNeed | undefined {
  const consistent = parseLsn(database?.endLsn ?? '');
  if (!database || !wal || consistent === undefined) return undefined;
  const consistentMs = Date.parse(recoveryPoint);
  return { resource, id, timeline: database.timeline, consistent, consistentMs, ...wal };
}

async function checkContents(context: CheckContext, users: BackupUsers, expected: Expected): Promise<void> {
  const { store, findings, signal } = context;
  const { parts, indexes } = expected;
  await forEachLimit(store.list('indexes/', { signal }), PARTS_IN_FLIGHT, async ({ key, size }) => {
    findings.listed(key, size);
    const id = /^indexes\/[^/]+\/([^/]+)$/.exec(key)?.[1];
    const wanted = indexes.get(key);
    indexes.delete(key);
    if (wanted) await checkContent(context, users, { key, size, wanted, seal: `${id}/index` });
    else if (id !== undefined && timeOfId(id) !== undefined) findings.orphan(size);
    else findings.stranger(key);
  });
  await forEachLimit(store.list('parts/', { signal }), PARTS_IN_FLIGHT, async ({ key, size }) => {
    findings.listed(key, size);
    const at = parsePartKey(key);
    // Two spellings of one number are two objects: only one of them is what a manifest names.
    if (!at || key !== layout.part(at.resource, at.id, at.number) || timeOfId(at.id) === undefined) {
      findings.stranger(key);
      return;
    }
    const wanted = parts.take(at.resource, at.id, at.number);
    if (wanted) await checkContent(context, users, { key, size, wanted, seal: at.id });
    else findings.orphan(size);
  });
  const look = async ([key, content]: readonly [string, Content]) => await unlisted(context, users, key, content);
  await forEachLimit(indexes, LOOKS_IN_FLIGHT, look);
  await forEachLimit(keysOf(parts), LOOKS_IN_FLIGHT, look);
}

function* keysOf(parts: ExpectedParts): Generator<readonly [string, Content]> {
  for (const { resource, id, number, content } of parts.left()) yield [layout.part(resource, id, number), content];
}

async function checkContent(
  context: CheckContext,
  users: BackupUsers,
  { key, size, wanted, seal }: { key: string; size: number; wanted: Content; seal: string },
): Promise<void> {
  const { store, findings, opener, reads, signal } = context;
  const report = (why: string) =>
    findings.problem({
      state: 'damaged',
      kind: 'content',
      key,
      why,
      touches: names(users.of(key)),
      content: wanted,
    });
  if (size !== wanted.size) {
    report(`it has ${size} bytes; its manifest says ${wanted.size}`);
    return;
  }
  if (!reads(key)) return;
  try {
    const bytes = await store.read(key, undefined, { signal });
    findings.read(key, bytes.length);
    if (sha256(bytes).toString('hex') !== wanted.sha256) report('its bytes are not those that its manifest says');
    else await opener?.content(key, bytes, { context: seal, keyId: wanted.keyId });
  } catch (error) {
    // Retention removes content after its manifest: gone altogether is no damage.
    if (!(await isGone(store, key, error, signal))) report(unread(error));
    else await missing(context, users, key, wanted);
  }
}

/** The store says `corrupt` for content that it cannot give back; anything else is not about this object. */
function unread(error: unknown): string {
  if (error instanceof DrError && error.kind === 'corrupt') return error.message;
  throw error;
}

/** What a manifest names and no listing has shown: missing, or hidden by a listing that is not whole. */
async function unlisted(context: CheckContext, users: BackupUsers, key: string, content: Content): Promise<void> {
  const { store, findings, nowMs, settledMs, signal } = context;
  // A vault that was emptied: the first ten thousand say enough, the others are counted.
  const info = findings.isFull ? undefined : await store.stat(key, { signal });
  if (!info) await missing(context, users, key, content);
  else if (info.modifiedMs <= nowMs - settledMs) {
    const touches = names(users.of(key));
    findings.problem({ state: 'unlisted', kind: 'content', key, why: 'it is there, and no listing shows it', touches });
  }
}

/** Reports an object that is not there, unless every backup that needs it has just been removed. */
async function missing(
  { store, findings, signal }: Pick<CheckContext, 'store' | 'findings' | 'signal'>,
  users: BackupUsers,
  key: string,
  content: Content,
): Promise<void> {
  const using = findings.isFull ? [] : users.of(key);
  const newest = using.at(-1);
  if (newest && !(await store.stat(manifestOf(newest), { signal }))) return;
  findings.problem({
    state: 'missing',
    kind: 'content',
    key,
    why: 'its manifest names it',
    touches: names(using),
    content,
  });
}
