import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client';
import type { VaultCare } from '../backup/care/care-record.ts';
import type { Status } from '../backup/status/model.ts';
import type { WalArchiverStatus } from '../backup/wal/status.ts';
import { parseLsn } from '../postgres/lsn.ts';
import { ofJobs, ofReplicas } from './metrics-jobs.ts';
import { type Define, type MetricsView, type Sample, seconds } from './metrics-shape.ts';

/** The registry behind `/metrics`. Names, meaning and alerts are in docs/operations.md. `view` is undefined before the start. */
export function createMetrics(version: string, view: () => MetricsView | undefined): Registry {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const samplesOf = (read: (view: MetricsView) => readonly Sample[]): Sample[] => {
    const now = view();
    return now ? read(now).filter(([, value]) => value !== undefined && !Number.isNaN(value)) : [];
  };
  const gauge = (name: string, help: string, labelNames: readonly string[], read: (view: MetricsView) => Sample[]) =>
    new Gauge({
      name,
      help,
      labelNames: [...labelNames],
      registers: [registry],
      collect() {
        this.reset();
        for (const [labels, value] of samplesOf(read)) this.set(labels, value ?? 0);
      },
    });
  const counter = (name: string, help: string, labelNames: readonly string[], read: (view: MetricsView) => Sample[]) =>
    new Counter({
      name,
      help,
      labelNames: [...labelNames],
      registers: [registry],
      collect() {
        this.reset();
        for (const [labels, value] of samplesOf(read)) this.inc(labels, value ?? 0);
      },
    });

  new Gauge({
    name: 'dr_build_info',
    help: 'Version of dr; always 1.',
    labelNames: ['version'],
    registers: [registry],
  }).set({ version }, 1);
  gauge('dr_role', '1 for the role of this site: active, standby or unknown.', ['role'], ({ role }) =>
    ['active', 'standby', 'unknown'].map((name) => [{ role: name }, Number(role.role === name)]),
  );
  gauge('dr_active_generation', 'Number of the record that says which site is active.', ['site'], ({ role }) =>
    role.active ? [[{ site: role.active.site }, role.active.generation]] : [],
  );

  ofResources(gauge);
  ofWal(gauge, counter);
  ofVaults(gauge, counter);

  ofJobs(gauge, counter);
  ofReplicas(gauge, counter);
  return registry;
}

function ofResources(gauge: Define): void {
  const each = (read: (resource: Status['resources'][number], view: MetricsView) => number | undefined) => {
    return (view: MetricsView): Sample[] =>
      (view.status?.resources ?? []).map((resource) => [{ resource: resource.name }, read(resource, view)]);
  };
  gauge(
    'dr_recovery_point_age_seconds',
    'What would be lost of the resource if the region of the active site died now; +Inf = it cannot be recovered.',
    ['resource'],
    each((resource, view) => ageSeconds(resource, view)),
  );
  gauge(
    'dr_rpo_objective_seconds',
    'Most that may be lost of the resource.',
    ['resource'],
    each(({ objectiveMs }) => seconds(objectiveMs)),
  );
  gauge('dr_rto_objective_seconds', 'Within which time everything is to be back.', [], ({ rtoMs }) => [
    [{}, seconds(rtoMs)],
  ]);
  gauge(
    'dr_backup_last_success_timestamp_seconds',
    'When the newest backup was finished, by whichever process.',
    ['resource'],
    each(({ newest }) => seconds(newest?.finishedAtMs)),
  );
  gauge(
    'dr_backup_max_age_seconds',
    'How old the newest backup may become before one was missed: the interval of its schedule and a quarter.',
    ['resource'],
    each(({ maxAgeMs }) => seconds(maxAgeMs)),
  );
  gauge('dr_backup_bytes', 'Size of the newest backup.', ['resource', 'size'], ({ status }) =>
    (status?.resources ?? []).flatMap(({ name, newest }): Sample[] => [
      [{ resource: name, size: 'logical' }, newest?.logicalBytes],
      [{ resource: name, size: 'stored' }, newest?.storedBytes],
    ]),
  );
  gauge(
    'dr_cross_region',
    '1 if the newest recovery point lies in two regions.',
    ['resource'],
    each(({ crossRegion }) => Number(crossRegion)),
  );
  gauge(
    'dr_verification_ok',
    '1 if the last verification of the resource succeeded.',
    ['resource'],
    each(({ verified }) => verified && Number(verified.ok)),
  );
  gauge(
    'dr_verification_last_success_timestamp_seconds',
    'When the resource was last restored and checked with success, if that was its last verification.',
    ['resource'],
    each(({ verified }) => (verified?.ok ? Date.parse(verified.finishedAt) / 1000 : undefined)),
  );
  gauge(
    'dr_restore_seconds',
    'How long the restore of the last verification took until the data was there and consistent.',
    ['resource'],
    each(({ verified }) => seconds(verified?.restoreMs)),
  );
  gauge('dr_alerts', 'Alerts of dr status, by level.', ['level'], ({ status }) =>
    (['broken', 'warning'] as const).map((level) => [
      { level },
      status?.alerts.filter((alert) => alert.level === level).length,
    ]),
  );
  gauge('dr_status_measured_timestamp_seconds', 'When the status was last measured.', [], ({ status }) => [
    [{}, seconds(status?.at)],
  ]);
}

/** By the last measurement; where this process archives the WAL it knows better what has become durable since. */
function ageSeconds(resource: Status['resources'][number], view: MetricsView): number {
  const measured =
    resource.recoveryPointMs === undefined ? Number.POSITIVE_INFINITY : view.nowMs - resource.recoveryPointMs;
  const surviving = new Set(view.status?.vaults.flatMap(({ vault, survives }) => (survives ? [vault] : [])));
  const archiver = view.archivers.find((each) => each.resource === resource.name)?.status;
  const ages = (archiver?.vaults ?? []).flatMap(({ name, ageMs }) =>
    surviving.has(name) && ageMs !== undefined ? [ageMs] : [],
  );
  // Without a base backup WAL alone brings nothing back.
  const live = resource.recoveryPointMs === undefined ? Number.POSITIVE_INFINITY : Math.min(...ages);
  return Math.max(0, Math.min(measured, live)) / 1000;
}

function ofWal(gauge: Define, counter: Define): void {
  const each = (read: (status: WalArchiverStatus) => Array<readonly [Record<string, string>, number | undefined]>) => {
    return (view: MetricsView): Sample[] =>
      view.archivers.flatMap(({ resource, status }) =>
        status ? read(status).map(([labels, value]): Sample => [{ resource, ...labels }, value]) : [],
      );
  };
  gauge(
    'dr_wal_streaming',
    '1 while WAL is received from the server.',
    ['resource'],
    each(({ state }) => [[{}, Number(state === 'streaming')]]),
  );
  gauge(
    'dr_wal_durable_lag_bytes',
    'WAL of the server that is not durable in the vault.',
    ['resource', 'vault'],
    each(({ vaults }) => vaults.map(({ name, lagBytes }) => [{ vault: name }, lagBytes])),
  );
  gauge(
    'dr_wal_age_seconds',
    'What would be lost if the site died now and only this vault survived.',
    ['resource', 'vault'],
    each(({ vaults }) => vaults.map(({ name, ageMs }) => [{ vault: name }, seconds(ageMs)])),
  );
  gauge(
    'dr_wal_acknowledged_lsn',
    'Up to where WAL is acknowledged to the server, as a number of bytes.',
    ['resource'],
    each(({ durableLsn }) => [[{}, durableLsn === undefined ? undefined : Number(parseLsn(durableLsn))]]),
  );
  gauge(
    'dr_wal_slot_status',
    '1 for what the server says of the replication slot: reserved, extended, unreserved or lost.',
    ['resource', 'slot', 'status'],
    each(({ slot }) => (slot.walStatus === undefined ? [] : [[{ slot: slot.name, status: slot.walStatus }, 1]])),
  );
  gauge(
    'dr_wal_slot_retained_bytes',
    'WAL that the server keeps for the replication slot.',
    ['resource', 'slot'],
    each(({ slot }) => [[{ slot: slot.name }, slot.retainedBytes]]),
  );
  counter(
    'dr_wal_gaps_total',
    'Gaps in the archive since the start: WAL that the server had removed before it was archived.',
    ['resource'],
    each(({ gaps }) => [[{}, gaps.length]]),
  );
}

function ofVaults(gauge: Define, counter: Define): void {
  gauge('dr_vault_up', '1 while the vault answers and is the right one.', ['vault'], ({ vaults }) =>
    vaults.map(({ vault, up }) => [{ vault }, up === undefined ? undefined : Number(up)]),
  );
  gauge('dr_vault_missing_backups', 'Backups within retention that other vaults have.', ['vault'], ({ status }) =>
    (status?.vaults ?? []).map(({ vault, lacks }) => [{ vault }, lacks]),
  );
  const ofCare = (read: (care: VaultCare) => number | undefined) => (view: MetricsView) =>
    (view.status?.vaults ?? []).map(({ vault, care }): Sample => [{ vault }, care && read(care)]);
  gauge(
    'dr_vault_check_timestamp_seconds',
    'When every object of the vault was last looked for, by whichever site.',
    ['vault'],
    ofCare(({ check }) => Date.parse(check.finishedAt) / 1000),
  );
  gauge(
    'dr_vault_read_timestamp_seconds',
    'When a sample of its content was last read and compared, by whichever site.',
    ['vault'],
    ofCare(({ read }) => (read ? Date.parse(read.finishedAt) / 1000 : undefined)),
  );
  gauge(
    'dr_vault_problems',
    'Objects that the last check has found missing or damaged and that were not mended.',
    ['vault'],
    ofCare(({ problems }) => problems),
  );
  gauge(
    'dr_vault_losses',
    'Resources of which no vault can bring back some backup or moment, as the last check of this vault says.',
    ['vault'],
    ofCare(({ losses }) => losses.length),
  );
  gauge(
    'dr_vault_repair_timestamp_seconds',
    'When something in the vault was last mended by a check, or could not be.',
    ['vault'],
    ofCare(({ repair }) => (repair ? Date.parse(repair.finishedAt) / 1000 : undefined)),
  );
  gauge(
    'dr_vault_mended_objects',
    'Objects that this last repair has mended, backups and WAL copied whole not counted.',
    ['vault'],
    ofCare(({ repair }) => repair?.mended),
  );
  counter(
    'dr_vault_requests_total',
    'Requests to the vault as stores bill them (HEAD is a GET), repeated ones included, by what they were for.',
    ['vault', 'operation', 'job'],
    (view) =>
      view.stores.flatMap(({ name, stats }) =>
        [...stats.byActivity].flatMap(([job, { requests }]) =>
          Object.entries(requests).map(([operation, number]): Sample => [{ vault: name, operation, job }, number]),
        ),
      ),
  );
  counter('dr_vault_retries_total', 'Requests to the vault that were sent again.', ['vault'], (view) =>
    view.stores.map(({ name, stats }) => [{ vault: name }, stats.retries]),
  );
  counter(
    'dr_vault_bytes_total',
    'Bytes of content sent to (out) and read from (in) the vault, by what they were for.',
    ['vault', 'direction', 'job'],
    (view) =>
      view.stores.flatMap(({ name, stats }) =>
        [...stats.byActivity].flatMap(([job, { bytesIn, bytesOut }]): Sample[] => [
          [{ vault: name, direction: 'out', job }, bytesOut],
          [{ vault: name, direction: 'in', job }, bytesIn],
        ]),
      ),
  );
}
