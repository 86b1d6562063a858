import { messageOf } from '../base/errors.ts';
import type { RunningTask } from './executor.ts';
import type { MetricsView } from './metrics-shape.ts';

/** What the daemon does, as `/state` shows it to people. */
export function describeState(site: string, view: MetricsView, tasks: readonly RunningTask[]): object {
  const { role, jobs, services, archivers, watching, leader, status } = view;
  return {
    site,
    role: { ...role, askedMs: undefined, asked: time(role.askedMs), error: text(role.error) },
    ...(leader && {
      leader: { ...leader, sinceMs: undefined, since: time(leader.sinceMs), error: text(leader.error) },
    }),
    jobs: jobs.map(({ name, enabled, working, runs, failures, overlaps, ...job }) => ({
      name,
      enabled,
      working,
      runningSince: time(job.runningSinceMs),
      nextRun: time(job.nextRunMs),
      lastSuccess: time(job.lastSuccessMs),
      runs,
      failures,
      overlaps,
      lastError: text(job.lastError),
    })),
    ...(tasks.length > 0 && { clusterJobs: tasks }),
    services: services.map((service) => ({ ...service, lastError: text(service.lastError) })),
    ...(watching && watching.length > 0 && { watching }),
    wal: archivers,
    alerts: status?.alerts ?? [],
  };
}

function time(ms: number | undefined): string | undefined {
  return ms === undefined ? undefined : new Date(ms).toISOString();
}

function text(error: unknown): string | undefined {
  return error === undefined ? undefined : messageOf(error);
}
