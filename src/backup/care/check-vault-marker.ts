import { DrError } from '../../base/errors.ts';
import { markerSchema, type VaultMarker } from '../../vault/enrol.ts';
import { FORMAT_VERSION, layout } from '../../vault/layout.ts';
import { decodeRecord } from '../../vault/record.ts';
import { type RosterEntry, rosterIn } from '../../vault/roster-record.ts';
import type { ObjectStore } from '../../vault/store.ts';
import type { CheckContext } from './check-vault-findings.ts';
import { requireExact } from './check-vault-records.ts';

/** What is known about the marker of a vault. */
export type MarkerState =
  | { readonly state: 'good'; readonly marker: VaultMarker }
  | { readonly state: 'missing' }
  /** `marker`: what could still be read of it. */
  | { readonly state: 'damaged'; readonly why: string; readonly marker: VaultMarker | undefined };

/** Reports what is wrong with the marker. Throws `refused` for a place that is another vault, of a newer format, or none. */
export async function checkMarker(context: CheckContext): Promise<void> {
  const { store, others, findings, signal } = context;
  const entry = await rosterEntry(store, others, signal);
  const found = await readMarker(store, entry, signal);
  if (found.state === 'good') return;
  if (!entry && found.state === 'missing') {
    throw new DrError('refused', `there is no vault at ${store.location}`, {
      where: `${store.location}/${layout.marker}`,
      next: `Correct the url of vault ${store.name}; a new vault is made by the first backup into it.`,
    });
  }
  if (found.state === 'missing') await requireContent(store, signal);
  findings.problem({
    state: found.state,
    kind: 'marker',
    key: layout.marker,
    why: found.state === 'missing' ? 'this place was enrolled as a vault' : found.why,
    touches: ['the whole vault: nobody reads or writes it without its marker'],
  });
}

/** Throws `unreachable` where a vault was and nothing of it is: an unmounted volume or an emptied bucket is not damage to be mended. */
export async function requireContent(store: ObjectStore, signal?: AbortSignal): Promise<void> {
  const folders = await store.folders('', { signal });
  if (folders.some((folder) => folder === 'manifests' || folder === 'records')) return;
  throw new DrError(
    'unreachable',
    `the vault ${store.name} was enrolled at this place and nothing of it is there now`,
    {
      where: store.location,
      next: `Mount it or bring it back; if it is lost for good, run \`dr vault enrol ${store.name}\` to begin a new one there.`,
      retryable: false,
    },
  );
}

/** The newest word of any vault about this one, if it means this place. A damaged record has no say here. Throws `refused` when they disagree. */
export async function rosterEntry(
  store: ObjectStore,
  others: readonly ObjectStore[],
  signal?: AbortSignal,
): Promise<RosterEntry | undefined> {
  let newest: RosterEntry | undefined;
  let clash = false;
  for (const witness of [store, ...others]) {
    try {
      const entry = (await rosterIn(witness, { signal })).get(store.name);
      if (entry && entry.generation === newest?.generation && entry.id !== newest.id) clash = true;
      if (entry && entry.generation > (newest?.generation ?? 0)) newest = entry;
    } catch (error) {
      // Whether the vault itself answers, and other vaults at all, is found out by the rest of the check.
      if (signal?.aborted || !(error instanceof DrError)) throw error;
    }
  }
  if (clash) throw otherVault(store);
  return newest?.location === store.location ? newest : undefined;
}

/** Reads the marker and compares it with what the vaults know. Throws `refused` for another vault and for a newer format. */
export async function readMarker(
  store: ObjectStore,
  entry: RosterEntry | undefined,
  signal?: AbortSignal,
): Promise<MarkerState> {
  const where = `${store.location}/${layout.marker}`;
  let bytes: Buffer;
  try {
    bytes = await store.read(layout.marker, undefined, { signal });
  } catch (error) {
    if (error instanceof DrError && error.kind === 'not-found') return { state: 'missing' };
    throw error;
  }
  let marker: VaultMarker | undefined;
  let digested = false;
  try {
    const value: unknown = JSON.parse(bytes.toString('utf8'));
    marker = markerSchema.parse(value);
    // Markers of the first versions have no digest.
    digested = typeof value === 'object' && value !== null && 'sha256' in value;
    if (digested || entry?.id !== marker.id) {
      decodeRecord(bytes, 'the marker', where);
      requireExact(bytes, where);
    }
  } catch (error) {
    if (!digested && marker && entry && entry.id !== marker.id) throw otherVault(store);
    if (marker && !entry && !digested) return { state: 'good', marker };
    return { state: 'damaged', why: error instanceof DrError ? error.message : 'the marker cannot be read', marker };
  }
  if (marker.format > FORMAT_VERSION) {
    throw new DrError('refused', `vault ${store.name} was written by a newer dr (format ${marker.format})`, {
      where,
      next: 'Install the newer dr here too.',
    });
  }
  if (entry && entry.id !== marker.id) throw otherVault(store);
  return { state: 'good', marker };
}

function otherVault(store: ObjectStore): DrError {
  return new DrError('refused', `the vault at ${store.location} is not the one that was enrolled as ${store.name}`, {
    where: `${store.location}/${layout.marker}`,
    next: 'Bring the right one back (is another volume mounted there?), or begin anew with `dr vault enrol NAME`.',
  });
}
