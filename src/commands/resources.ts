import type { ResourceKind } from '../backup/manifest.ts';
import { DrError } from '../base/errors.ts';
import { suggestion } from '../config/problems.ts';
import type { Config } from '../config/types.ts';

/** A configured resource, whatever its kind. */
export interface ConfiguredResource {
  readonly name: string;
  readonly kind: ResourceKind;
}

/** All resources of a configuration: databases, data, configuration. */
export function configuredResources(config: Config): ConfiguredResource[] {
  return [
    ...Object.keys(config.databases).map((name) => ({ name, kind: 'database' as const })),
    ...Object.keys(config.data).map((name) => ({ name, kind: 'data' as const })),
    ...[...Object.keys(config.configuration), ...Object.keys(config.objects)].map((name) => ({
      name,
      kind: 'configuration' as const,
    })),
  ];
}

/** The resources of these names, all for no names; throws `not-found` with a suggestion. */
export function resourcesNamed(config: Config, names: readonly string[]): ConfiguredResource[] {
  const all = configuredResources(config);
  if (names.length === 0) return all;
  return names.map((name) => {
    const found = all.find((resource) => resource.name === name);
    if (found) return found;
    throw new DrError(
      'not-found',
      `there is no resource "${name}"${suggestion(
        name,
        all.map((each) => each.name),
      )}`,
      {
        where: config.source.path,
        next: `Name one of: ${all.map((each) => each.name).join(', ')}.`,
      },
    );
  });
}

/** The role and database that a PostgreSQL URL names, with PostgreSQL's defaults. */
export function roleAndDatabase(url: string): { roles: string[]; database: string } {
  const parsed = URL.canParse(url) ? new URL(url) : undefined;
  const role = decodeURIComponent(parsed?.username ?? '') || parsed?.searchParams.get('user') || '';
  const database = decodeURIComponent(parsed?.pathname.replace(/^\//, '') ?? '') || role || 'postgres';
  return { roles: role === '' ? [] : [role], database };
}
