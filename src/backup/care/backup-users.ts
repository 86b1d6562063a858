import { layout } from '../../vault/layout.ts';
import {
  everyBackup,
  parsePartKey,
  type SurveyedBackup,
  usesPart,
  type VaultSurvey,
} from '../retention/collect-survey.ts';

/** Which backups need an object. Built resource by resource, when the first object of one is asked for. */
export class BackupUsers {
  readonly #survey: VaultSurvey;
  /** By resource, then by the backup that wrote a part: backups that use any part of it, oldest first. */
  readonly #owners = new Map<string, Map<string, SurveyedBackup[]>>();

  constructor(survey: VaultSurvey) {
    this.#survey = survey;
  }

  /** The backups that need an index or a part, oldest first. */
  of(key: string): readonly SurveyedBackup[] {
    const [, resource = '', id = ''] = /^indexes\/([^/]+)\/([^/]+)$/.exec(key) ?? [];
    const own = this.#survey.backups.get(resource)?.get(id);
    if (own) return [own];
    const part = parsePartKey(key);
    if (!part) return [];
    const using = this.#ofResource(part.resource).get(part.id) ?? [];
    return using.filter(({ parts }) => usesPart(parts, part.id, part.number));
  }

  /** The backups that need a data key. */
  ofKey(id: string): readonly SurveyedBackup[] {
    return everyBackup(this.#survey).filter(({ keyIds }) => keyIds.includes(id));
  }

  /** The backup of a manifest, by its name alone. */
  ofManifest(key: string): { readonly resource: string; readonly id: string } | undefined {
    const [, resource, id] = /^manifests\/([^/]+)\/([^/]+)\.json$/.exec(key) ?? [];
    return resource === undefined || id === undefined ? undefined : { resource, id };
  }

  #ofResource(resource: string): Map<string, SurveyedBackup[]> {
    const known = this.#owners.get(resource);
    if (known) return known;
    const owners = new Map<string, SurveyedBackup[]>();
    const backups = [...(this.#survey.backups.get(resource)?.values() ?? [])].sort((a, b) => (a.id < b.id ? -1 : 1));
    for (const backup of backups) {
      for (const owner of backup.parts.keys()) {
        const users = owners.get(owner);
        if (users) users.push(backup);
        else owners.set(owner, [backup]);
      }
    }
    this.#owners.set(resource, owners);
    return owners;
  }
}

/** For people. */
export function names(backups: readonly { readonly resource: string; readonly id: string }[]): string[] {
  return backups.map(({ resource, id }) => `backup ${resource} ${id}`);
}

/** The manifest of a backup, by its names. */
export function manifestOf({ resource, id }: { readonly resource: string; readonly id: string }): string {
  return layout.manifest(resource, id);
}
