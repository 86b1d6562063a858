import { forEachLimit } from '../../base/concurrency.ts';
import { DrError } from '../../base/errors.ts';
import { layout, timeOfId } from '../../vault/layout.ts';
import type { ObjectStore } from '../../vault/store.ts';
import { readManifest } from '../catalog.ts';
import { type SurveyedBackup, surveyed, type VaultSurvey } from '../retention/collect-survey.ts';
import { isGone } from './check-vault-findings.ts';

/** Manifests read at once from one vault. */
const READS_IN_FLIGHT = 32;

/**
 * What a vault holds, for whoever adds to it. Other than retention, which deletes and so refuses at the first doubt, this passes over
 * what is foreign among the manifests. `known`: a survey of any vault; the same id is the same backup, and its manifest is not read again.
 */
export async function surveyForCare(
  store: ObjectStore,
  signal?: AbortSignal,
  known?: VaultSurvey,
): Promise<VaultSurvey> {
  const backups = new Map<string, Map<string, SurveyedBackup>>();
  const unreadable: Array<VaultSurvey['unreadable'][number]> = [];
  await forEachLimit(store.list(layout.manifests(), { signal }), READS_IN_FLIGHT, async ({ key }) => {
    const [, resource, id] = /^manifests\/([^/]+)\/([^/]+)\.json$/.exec(key) ?? [];
    if (resource === undefined || id === undefined || timeOfId(id) === undefined) return;
    let backup = known?.backups.get(resource)?.get(id);
    try {
      backup ??= surveyed(await readManifest(store, resource, id), store);
    } catch (error) {
      if (!(error instanceof DrError)) throw error;
      // Listed and not there: it was deleted a moment ago, or is on its way.
      if (await isGone(store, key, error, signal)) return;
      if (error.kind !== 'corrupt' && error.kind !== 'refused') throw error;
      unreadable.push({ resource, id, key, error });
      return;
    }
    const ofResource = backups.get(resource) ?? new Map<string, SurveyedBackup>();
    backups.set(resource, ofResource.set(id, backup));
  });
  return { store, backups, unreadable };
}
