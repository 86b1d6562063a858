import type { Alert, ResourceStatus, Status, VaultStatus } from '../backup/status/model.ts';
import { formatBytes, formatDuration } from '../base/units.ts';
import { type Column, renderTable } from './table.ts';
import { formatAge, list } from './values.ts';

/** The answer to "are we safe?": the sentence, the resources, the vaults, then what is broken and what to mend. */
export function renderStatus(status: Status): string {
  const { at, active, resources, vaults, alerts } = status;
  const since = active.since === undefined ? '' : ` since ${active.since}`;
  const origin = active.recorded
    ? `${since}${active.by === undefined ? '' : ` (${active.by})`}`
    : ' (by the configuration)';
  const lines = [
    verdict(status),
    '',
    `Active site: ${active.site}${active.region === undefined ? '' : ` in ${active.region}`}${origin}`,
    '',
    resources.length === 0
      ? 'Nothing is protected yet: add databases, data or configuration to the configuration file.'
      : renderTable(resourceColumns(at), resources),
    '',
    renderTable(vaultColumns(at), vaults),
  ];
  const broken = alerts.filter(({ level }) => level === 'broken');
  const warnings = alerts.filter(({ level }) => level === 'warning');
  if (broken.length > 0) lines.push('', 'BROKEN:', ...broken.flatMap(alertLines));
  if (warnings.length > 0) lines.push('', 'To mend:', ...warnings.flatMap(alertLines));
  return lines.join('\n');
}

/** `If eu-west-1 died now you would lose 3.2 s of orders and …` */
function verdict({ ok, active, resources, at }: Status): string {
  if (!resources.some(({ rpoNowMs }) => rpoNowMs !== undefined)) {
    return ok ? 'There is nothing to lose yet.' : 'NOT SAFE: nothing could be recovered.';
  }
  const losses = resources.map(({ name, kind, rpoNowMs, objectiveMs }) => {
    if (rpoNowMs === undefined) return `everything of ${name}`;
    // Of what is backed up on change the age of the last change says nothing about a loss.
    return kind === 'configuration' && objectiveMs === undefined ? undefined : `${formatDuration(rpoNowMs)} of ${name}`;
  });
  const lost = list(losses.filter((loss) => loss !== undefined)) || 'nothing that is known';
  const region = active.region ?? `site ${active.site}`;
  const proofs = resources.flatMap(({ verified }) => (verified?.ok ? [verified] : []));
  const slowest = proofs.sort((a, b) => b.restoreMs - a.restoreMs)[0];
  const back = slowest
    ? ` The slowest restore took ${formatDuration(slowest.restoreMs)}, as proven ${formatAge(Date.parse(slowest.finishedAt), at)} (${slowest.resource}).`
    : ' How long a restore takes has not been proven yet.';
  return `${ok ? 'Safe' : 'NOT SAFE'}: if ${region} died now, ${lost} would be lost.${back}`;
}

function resourceColumns(nowMs: number): readonly Column<ResourceStatus>[] {
  return [
    { title: 'RESOURCE', value: ({ name }) => name },
    { title: 'STATE', value: ({ ok }) => (ok ? 'ok' : 'BROKEN') },
    {
      title: 'LOSS NOW',
      value: ({ rpoNowMs }) => (rpoNowMs === undefined ? 'everything' : formatDuration(rpoNowMs)),
      align: 'right',
    },
    {
      title: 'ALLOWED',
      value: ({ objectiveMs }) => (objectiveMs === undefined ? '-' : formatDuration(objectiveMs)),
      align: 'right',
    },
    { title: 'NEWEST BACKUP', value: ({ newest }) => (newest ? formatAge(newest.finishedAtMs, nowMs) : 'none') },
    { title: 'SIZE', value: ({ newest }) => (newest ? formatBytes(newest.logicalBytes) : '-'), align: 'right' },
    { title: 'CROSS-REGION', value: ({ crossRegion }) => (crossRegion ? 'yes' : 'NO') },
    {
      title: 'VERIFIED',
      value: ({ verified }) =>
        verified ? `${verified.ok ? '' : 'FAILED '}${formatAge(Date.parse(verified.finishedAt), nowMs)}` : 'never',
    },
    {
      title: 'NEXT BACKUP',
      value: ({ nextRunMs, schedule }) => (nextRunMs === undefined ? schedule : formatAge(nextRunMs, nowMs)),
    },
  ];
}

const vaultColumns = (nowMs: number): readonly Column<VaultStatus>[] => [
  { title: 'VAULT', value: ({ vault }) => vault },
  { title: 'REGION', value: ({ region, survives }) => `${region}${survives ? '' : ' (active site)'}` },
  { title: 'LOCATION', value: ({ location }) => location },
  {
    title: 'STATE',
    value: ({ problem, lacks }) => {
      if (problem !== undefined) return 'NOT READABLE';
      return lacks === 0 ? 'complete' : `lacks ${lacks === 1 ? 'one backup' : `${lacks} backups`}`;
    },
  },
  {
    title: 'CHECKED',
    value: ({ care }) => {
      if (!care) return 'never';
      const age = formatAge(Date.parse(care.check.finishedAt), nowMs);
      return care.problems === 0 ? age : `${age}: ${care.problems} wrong`;
    },
  },
];

function alertLines({ message, next }: Alert): string[] {
  return [`  ${message}`, ...(next === undefined ? [] : [`    ${next}`])];
}
