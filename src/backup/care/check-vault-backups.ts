import { forEachLimit } from '../../base/concurrency.ts';
import { DrError } from '../../base/errors.ts';
import { type Lsn, parseLsn } from '../../postgres/lsn.ts';
import { layout } from '../../vault/layout.ts';
import { sha256 } from '../../vault/seal.ts';
import { readManifest } from '../catalog.ts';
import type { Manifest } from '../manifest.ts';
import {
  everyBackup,
  parsePartKey,
  type SurveyedBackup,
  surveyed,
  usesPart,
  type VaultSurvey,
} from '../retention/collect-survey.ts';
import { type CheckContext, isGone } from './check-vault-findings.ts';

const MANIFESTS_IN_FLIGHT = 16;
/** Parts read at once, up to 16 MiB each. */
const PARTS_IN_FLIGHT = 3;

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
  readonly segmentBytes: number;
}

export interface BackupsFound {
  readonly survey: VaultSurvey;
  readonly databases: readonly DatabaseNeed[];
}

interface Content {
  readonly size: number;
  readonly sha256: string;
}

/** What the manifests name and was not found yet. */
interface Expected {
  /** By `resource/backup`, then by number: with incremental backups a part is named by many manifests. */
  readonly parts: Map<string, Map<number, Content>>;
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
  const expected: Expected = { parts: new Map(), indexes: new Map() };
  await forEachLimit(store.list(layout.manifests(), { signal }), MANIFESTS_IN_FLIGHT, async ({ key, size }) => {
    findings.listed(key, size);
    const [, resource, id] = /^manifests\/([^/]+)\/([^/]+)\.json$/.exec(key) ?? [];
    if (resource === undefined || id === undefined) {
      findings.stranger(key);
      return;
    }
    try {
      const manifest = await readManifest(store, resource, id);
      const backup = surveyed(manifest, store);
      expect(expected, manifest);
      const need = needOf(manifest, backup);
      if (need) databases.push(need);
      const ofResource = backups.get(resource) ?? new Map<string, SurveyedBackup>();
      backups.set(resource, ofResource.set(id, backup));
    } catch (error) {
      if (await isGone(store, key, error, signal)) return;
      findings.damaged('manifest', key, error, [`backup ${resource} ${id}`]);
      unreadable.push({ resource, id, key, error });
    }
  });
  const survey = { store, backups, unreadable };
  await checkContents(context, survey, expected);
  return { survey, databases };
}

function expect({ parts, indexes }: Expected, { resource, index, parts: named }: Manifest): void {
  indexes.set(index.key, { size: index.size, sha256: index.sha256 });
  for (const { key, size, sha256 } of named) {
    const at = parsePartKey(key);
    if (!at) continue;
    const owner = `${resource}/${at.id}`;
    const known = parts.get(owner) ?? new Map<number, Content>();
    parts.set(owner, known.set(at.number, { size, sha256 }));
  }
}

function needOf({ database }: Manifest, { resource, id, wal }: SurveyedBackup): DatabaseNeed | undefined {
  const consistent = parseLsn(database?.endLsn ?? '');
  if (!database || !wal || consistent === undefined) return undefined;
  return { resource, id, timeline: database.timeline, consistent, ...wal };
}

async function checkContents(context: CheckContext, survey: VaultSurvey, expected: Expected): Promise<void> {
  const { store, findings, signal } = context;
  const { parts, indexes } = expected;
  await forEachLimit(store.list('indexes/', { signal }), PARTS_IN_FLIGHT, async ({ key, size }) => {
    findings.listed(key, size);
    const wanted = indexes.get(key);
    indexes.delete(key);
    if (wanted) await checkContent(context, survey, key, size, wanted);
    else if (/^indexes\/[^/]+\/[^/]+$/.test(key)) findings.orphan(size);
    else findings.stranger(key);
  });
  await forEachLimit(store.list('parts/', { signal }), PARTS_IN_FLIGHT, async ({ key, size }) => {
    findings.listed(key, size);
    const at = parsePartKey(key);
    const known = at && parts.get(`${at.resource}/${at.id}`);
    const wanted = at && known?.get(at.number);
    // Two spellings of one number are two objects: only one of them is what a manifest names.
    if (!at || key !== layout.part(at.resource, at.id, at.number)) findings.stranger(key);
    else if (wanted) {
      known?.delete(at.number);
      await checkContent(context, survey, key, size, wanted);
    } else findings.orphan(size);
  });
  for (const [key, content] of indexes) await missing(context, survey, key, content);
  for (const [owner, numbers] of parts) {
    const [resource = '', id = ''] = owner.split('/');
    for (const [number, content] of numbers) {
      await missing(context, survey, layout.part(resource, id, number), content);
    }
  }
}

async function checkContent(
  { store, findings, reads, signal }: CheckContext,
  survey: VaultSurvey,
  key: string,
  size: number,
  wanted: Content,
): Promise<void> {
  const report = (why: string) =>
    findings.problem({
      state: 'damaged',
      kind: 'content',
      key,
      why,
      touches: names(usersOf(survey, key)),
      content: wanted,
    });
  if (size !== wanted.size) {
    report(`it has ${size} bytes; its manifest says ${wanted.size}`);
    return;
  }
  if (!reads(key)) return;
  try {
    const bytes = await store.read(key, undefined, { signal });
    findings.readBytes += bytes.length;
    if (sha256(bytes).toString('hex') !== wanted.sha256) report('its bytes are not those that its manifest says');
  } catch (error) {
    // Retention removes content after its manifest: gone altogether is no damage.
    if (!(await isGone(store, key, error, signal))) report(unread(error));
    else await missing({ store, findings, signal }, survey, key, wanted);
  }
}

/** The store says `corrupt` for content that it cannot give back; anything else is not about this object. */
function unread(error: unknown): string {
  if (error instanceof DrError && error.kind === 'corrupt') return error.message;
  throw error;
}

/** Reports an object that is not there, unless every backup that needs it has just been removed. */
async function missing(
  { store, findings, signal }: Pick<CheckContext, 'store' | 'findings' | 'signal'>,
  survey: VaultSurvey,
  key: string,
  content: Content,
): Promise<void> {
  if (await store.stat(key, { signal })) return;
  const users = usersOf(survey, key);
  const newest = users.at(-1);
  if (newest && !(await store.stat(layout.manifest(newest.resource, newest.id), { signal }))) return;
  findings.problem({
    state: 'missing',
    kind: 'content',
    key,
    why: 'its manifest names it',
    touches: names(users),
    content,
  });
}

/** The backups that need an index or a part, oldest first. */
function usersOf(survey: VaultSurvey, key: string): SurveyedBackup[] {
  const [, index, resource = '', id = ''] = /^(indexes)?(?:parts)?\/([^/]+)\/([^/]+)/.exec(key) ?? [];
  const ofResource = survey.backups.get(resource);
  const own = ofResource?.get(id);
  if (index !== undefined) return own ? [own] : [];
  const number = parsePartKey(key)?.number ?? 0;
  return everyBackup({ ...survey, backups: new Map([[resource, ofResource ?? new Map()]]) })
    .filter(({ parts }) => usesPart(parts, id, number))
    .sort((a, b) => (a.id < b.id ? -1 : 1));
}

export function names(backups: readonly { readonly resource: string; readonly id: string }[]): string[] {
  return backups.map(({ resource, id }) => `backup ${resource} ${id}`);
}
