import { availableParallelism, tmpdir, userInfo } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { DrError } from '../base/errors.ts';
import { buildFiles, buildKeep } from './build-files.ts';
import { buildExecutor, buildLeader } from './executor-schema.ts';
import { buildObjectLock } from './object-lock.ts';
import { parseDatabaseUrl } from './scalars.ts';
import type { ConfigFile } from './schema.ts';
import type {
  ClusterAccess,
  Config,
  DatabaseConfig,
  DatabaseTarget,
  NotificationConfig,
  RouteConfig,
  SwitchConfig,
  TrafficConfig,
  TriggerConfig,
} from './types.ts';
import { buildWorkloads } from './workloads.ts';

type Section<Name extends 'databases' | 'traffic'> = ConfigFile[Name][string];

/** The configuration that the rest of dr works with: names inside the entries, dependent defaults filled in. */
export function buildConfig(file: ConfigFile, source: Config['source']): Config {
  const { rto: rtoMs, rpo: rpoMs } = file.objectives;
  return {
    version: 1,
    source,
    objectives: { rtoMs, rpoMs },
    vaults: mapValues(file.vaults, (vault, name) => ({
      name,
      region: vault.region,
      url: vault.url,
      endpoint: vault.endpoint,
      forcePathStyle: vault.forcePathStyle,
      credentials: vault.credentials,
      objectLock: buildObjectLock(vault.objectLock, file),
    })),
    allowSingleRegion: file.allowSingleRegion,
    sites: mapValues(file.sites, (site, name) => ({ name, ...site, cluster: site.cluster && accessOf(site.cluster) })),
    active: file.active,
    encryption: buildEncryption(file.encryption),
    databases: mapValues(file.databases, (database, name) =>
      buildDatabase(name, database, rpoMs, file.backup.keepAtLeast),
    ),
    ...buildFiles(file),
    traffic: mapValues(file.traffic, (traffic, name) => buildTraffic(name, traffic)),
    ...buildWorkloads(file),
    verification: file.verification,
    validation: {
      http: file.validation.http.map((check) => ({ ...check, contains: check.contains })),
      stabilizeMs: file.validation.stabilize,
      triggers: buildTriggers(file.validation.triggers),
    },
    daemon: {
      listen: file.daemon.listen,
      leader: buildLeader(file.daemon.leader),
      retentionSchedule: file.daemon.retention,
      applyRetention: file.daemon.applyRetention,
      vaultCheck: file.daemon.vaultCheck,
    },
    executor: buildExecutor(file.executor),
    backup: {
      compressionLevel: file.backup.compressionLevel,
      partBytes: file.backup.partSize,
      workers: file.backup.workers ?? availableParallelism(),
      keepAtLeast: file.backup.keepAtLeast,
    },
    postgresql: file.postgresql,
    commands: mapValues(file.commands, (command, name) => ({
      name,
      run: command.run,
      check: command.check,
      repeatable: command.repeatable,
      drill: command.drill,
      timeoutMs: command.timeout,
      workingDirectory: command.workingDirectory,
      environment: command.environment,
    })),
    notifications: mapValues(file.notifications, buildNotification),
    // One folder per user: another user's folder in a shared /tmp is neither writable nor to be trusted.
    scratch: file.scratch ?? join(tmpdir(), `dr-${userInfo().uid}`),
    runbooks: file.runbooks === undefined ? undefined : resolve(dirname(source.path), file.runbooks),
  };
}

function buildEncryption(encryption: ConfigFile['encryption']): Config['encryption'] {
  if (encryption === 'none') return encryption;
  const { recipients, kms } = encryption;
  if (!kms) return { recipients };
  const { keyId, replicas, endpoint, credentials } = kms;
  const region = kms.region ?? keyId.split(':')[3] ?? '';
  return { recipients, kms: { key: keyId, regions: [...new Set([region, ...replicas])], endpoint, credentials } };
}

function buildDatabase(
  name: string,
  database: Section<'databases'>,
  rpoMs: number,
  keepAtLeast: number,
): DatabaseConfig {
  return {
    name,
    url: database.url,
    schedule: database.schedule,
    retentionMs: database.retention.age,
    keep: buildKeep(database.retention, keepAtLeast),
    rpoMs: database.rpo ?? rpoMs,
    wal: {
      enabled: database.wal.enabled,
      flushEveryMs: database.wal.flushEvery,
      slot: database.wal.slot ?? `dr_${name.toLowerCase().replace(/-/g, '_')}`.slice(0, 63),
      durable: database.wal.durable,
    },
    recover: mapValues(
      database.recover,
      (target): DatabaseTarget => ({
        dataDirectory: target.dataDirectory,
        port: target.port,
        listen: target.listen,
        url: target.url ?? relocate(database.url, target.listen, target.port),
        user: target.user,
        parameters: target.parameters,
      }),
    ),
  };
}

function buildTraffic(name: string, traffic: Section<'traffic'>): TrafficConfig {
  return { name, driver: buildDriver(traffic), endpoints: traffic.endpoints, resolvers: traffic.resolvers };
}

function buildDriver({
  route53,
  rfc2136,
  health,
  httpRoute,
  virtualService,
}: Section<'traffic'>): TrafficConfig['driver'] {
  if (route53) {
    const { zone, ttl: ttlSeconds, record, endpoint, nameservers, credentials, ...rest } = route53;
    const id = zone.replace('/hostedzone/', '');
    return {
      kind: 'route53',
      ...rest,
      zone: id,
      record: plain(record),
      ttlSeconds,
      endpoint,
      nameservers,
      credentials,
    };
  }
  if (rfc2136) {
    const { zone, record, ttl: ttlSeconds, nameservers, ...rest } = rfc2136;
    return { kind: 'rfc2136', ...rest, zone: plain(zone), record: plain(record), ttlSeconds, nameservers };
  }
  if (health) {
    const switches = health.switches.map(({ url, region, endpoint, forcePathStyle, credentials }): SwitchConfig => {
      return { url, region, endpoint, forcePathStyle, credentials };
    });
    const { type, primary, nameservers } = health;
    return { kind: 'health', record: plain(health.record), type, primary, switches, nameservers };
  }
  if (httpRoute) return buildRoute('httpRoute', httpRoute);
  if (virtualService) return buildRoute('virtualService', virtualService);
  throw new DrError('internal', 'a traffic entry without a driver passed the check of the shape');
}

function buildRoute(
  kind: RouteConfig['kind'],
  { cluster, namespace, name, rule }: NonNullable<Section<'traffic'>['httpRoute']>,
): RouteConfig {
  return { kind, cluster: accessOf(cluster), namespace, name, rule };
}

function accessOf({
  kubeconfig,
  context,
}: {
  kubeconfig?: string | undefined;
  context?: string | undefined;
}): ClusterAccess {
  return { kubeconfig, context };
}

function plain(record: string): string {
  return record.replace(/\.$/, '');
}

function buildTriggers({ errors, p95, health, prometheus }: ConfigFile['validation']['triggers']): TriggerConfig {
  return {
    errors: { above: errors.above, overMs: errors.over },
    p95: { aboveMs: p95.above, overMs: p95.over },
    health: { failures: health.failures, withinMs: health.within },
    prometheus: prometheus && { url: prometheus.url, errors: prometheus.errors, p95: prometheus.p95 },
  };
}

/** The same database and user at another address; addresses that mean "everywhere" are reached by the loopback. */
export function relocate(url: string, listen: string, port: number): string {
  const moved = parseDatabaseUrl(url);
  if (moved === undefined) return url;
  const first = listen.split(',')[0]?.trim() ?? '';
  const host = first === '*' || first === '0.0.0.0' || first === '::' ? '127.0.0.1' : first;
  moved.hostname = host.includes(':') ? `[${host}]` : host;
  moved.port = String(port);
  for (const parameter of ['host', 'hostaddr', 'port']) moved.searchParams.delete(parameter);
  return moved.toString();
}

function mapValues<In, Out>(
  record: Readonly<Record<string, In>>,
  build: (value: In, name: string) => Out,
): Record<string, Out> {
  return Object.fromEntries(Object.entries(record).map(([name, value]) => [name, build(value, name)]));
}

function buildNotification({ slack, pagerduty, webhook }: ConfigFile['notifications'][string]): NotificationConfig {
  if (slack !== undefined) return { kind: 'slack', url: slack };
  if (pagerduty) return { kind: 'pagerduty', url: pagerduty.url, routingKey: pagerduty.routingKey };
  if (webhook) return { kind: 'webhook', url: webhook.url, headers: webhook.headers };
  throw new DrError('internal', 'a notification without a way passed the check of the shape');
}
