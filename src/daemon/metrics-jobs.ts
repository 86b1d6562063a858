import { type Define, type Sample, seconds } from './metrics-shape.ts';

/** Metrics of what the daemon does again and again. */
export function ofJobs(gauge: Define, counter: Define): void {
  counter('dr_backup_failures_total', 'Backups that failed since the start.', ['resource'], ({ jobs }) =>
    jobs.flatMap(({ name, failures }): Sample[] =>
      name.startsWith('backup ') ? [[{ resource: name.slice('backup '.length) }, failures]] : [],
    ),
  );
  gauge('dr_backup_duration_seconds', 'How long the last backup took.', ['resource'], ({ jobs }) =>
    jobs.flatMap(({ name, lastDurationMs }): Sample[] =>
      name.startsWith('backup ') ? [[{ resource: name.slice('backup '.length) }, seconds(lastDurationMs)]] : [],
    ),
  );
  gauge('dr_watched_objects', 'Objects of a cluster that are watched for changes.', ['resource'], ({ watching = [] }) =>
    watching.map(({ resource, objects }) => [{ resource }, objects]),
  );
  gauge(
    'dr_unwatched_kinds',
    'Kinds of objects whose changes are not noticed now: a right is missing, or the API server does not answer.',
    ['resource'],
    ({ watching = [] }) => watching.map(({ resource, troubles }) => [{ resource }, troubles.length]),
  );
  gauge(
    'dr_retention_last_success_timestamp_seconds',
    'When retention was last done in all vaults, by whichever site.',
    [],
    ({ status }) => [[{}, seconds(status?.retention.doneMs)]],
  );
  gauge(
    'dr_retention_overdue',
    '1 if retention was not done in all vaults for twice its interval, whatever the reason.',
    [],
    ({ status }) => [[{}, status && Number(status.retention.overdue)]],
  );
  counter('dr_job_runs_total', 'Runs of a job since the start.', ['job'], ({ jobs }) =>
    jobs.map(({ name, runs }) => [{ job: name }, runs]),
  );
  counter('dr_job_failures_total', 'Runs of a job that failed since the start.', ['job'], ({ jobs }) =>
    jobs.map(({ name, failures }) => [{ job: name }, failures]),
  );
  counter('dr_job_overlaps_total', 'Runs that lasted into the next slot of the job.', ['job'], ({ jobs }) =>
    jobs.map(({ name, overlaps }) => [{ job: name }, overlaps]),
  );
  gauge('dr_job_next_run_timestamp_seconds', 'When the job runs next.', ['job'], ({ jobs }) =>
    jobs.map(({ name, nextRunMs }) => [{ job: name }, seconds(nextRunMs)]),
  );
  gauge(
    'dr_lease_held',
    '1 while this process does work that only the holder of this lease may do.',
    ['lease'],
    (now) =>
      now.jobs.flatMap(({ lease, working }): Sample[] => (lease === undefined ? [] : [[{ lease }, Number(working)]])),
  );
  gauge(
    'dr_service_failures',
    'Failures in a row of a part of the daemon that runs all the time.',
    ['service'],
    (now) => now.services.map(({ name, failures }) => [{ service: name }, failures]),
  );
}

/** Metrics of several replicas at one site, and of the Jobs that do their work. */
export function ofReplicas(gauge: Define, counter: Define): void {
  gauge(
    'dr_leader',
    '1 if this replica does the work of its site, 0 if another one does; always 1 without a Lease.',
    [],
    ({ leader }) => [[{}, leader === undefined ? 1 : Number(leader.role === 'leader')]],
  );
  gauge(
    'dr_leader_lapsed',
    '1 while this replica led last and the API server does not confirm it.',
    [],
    ({ leader }) => [[{}, leader && Number(leader.role === 'lapsed')]],
  );
  gauge('dr_leader_generation', 'How often the Lease has changed hands.', [], ({ leader }) => [
    [{}, leader?.generation],
  ]);
  gauge('dr_cluster_jobs_running', 'Jobs of the cluster that this replica follows.', ['verb'], ({ clusterJobs }) =>
    Object.entries(clusterJobs?.running ?? {}).map(([verb, number]): Sample => [{ verb }, number]),
  );
  counter(
    'dr_cluster_jobs_total',
    'Jobs of the cluster that this replica has seen end: succeeded, failed, or not-started (image, node, quota).',
    ['verb', 'outcome'],
    ({ clusterJobs }) =>
      (clusterJobs?.ended ?? []).map(({ verb, outcome, number }): Sample => [{ verb, outcome }, number]),
  );
}
