import { formatDuration } from '../base/units.ts';
import { worstIntervalMs } from '../config/cadence.ts';
import { formatPath, formatProblem } from '../config/problems.ts';
import type { Config, KeepRules } from '../config/types.ts';
import { type Column, renderTable } from '../report/table.ts';
import { count, list } from '../report/values.ts';
import { checkRunbooks, type RunbookFile, shippedRunbooks } from '../runbook/load.ts';
import { stepRegistry } from '../steps/registry.ts';
import type { CommandContext, CommandResult } from './context.ts';
import type { ValidateOptions } from './options.ts';

interface Protected {
  readonly name: string;
  readonly kind: 'database' | 'data' | 'configuration';
  readonly schedule: string;
  /** How much may be lost when everything works, and how much is allowed, milliseconds. */
  readonly lossMs: number;
  readonly rpoMs: number | undefined;
  readonly retentionMs: number;
  readonly keep: KeepRules;
  readonly recoversAt: readonly string[];
}

/** `dr validate`: reads and checks the configuration, connects to nothing, checks the runbooks, and shows what it promises. */
export async function run(context: CommandContext, _options: ValidateOptions): Promise<CommandResult> {
  const { config, warnings, site } = await context.loadConfig();
  const runbooks = await checkRunbooks(config, stepRegistry);
  const resources = protectedBy(config);
  const vaults = Object.values(config.vaults);
  const lines = [
    `${config.source.path} is valid${warnings.length === 0 ? '' : `, with ${count(warnings.length, 'warning')}`}.`,
    '',
    `Vaults:    ${list(vaults.map((vault) => `${vault.name} (${vault.region})`))}`,
    `Sites:     ${list(Object.keys(config.sites).map((name) => (name === config.active ? `${name} (active at first)` : name)))}`,
    `Objective: back in service within ${formatDuration(config.objectives.rtoMs)}, at most ${formatDuration(config.objectives.rpoMs)} of a database lost`,
    '',
    resources.length === 0
      ? 'Nothing is protected yet: add databases, data or configuration.'
      : renderTable(columns, resources),
    '',
    ...runbookLines(runbooks, config),
    '',
    'Nothing was connected to: "dr doctor" checks what the file names.',
  ];
  return {
    data: {
      file: config.source.path,
      site,
      warnings: warnings.map((warning) => ({
        ...warning,
        path: formatPath(warning.path),
        text: formatProblem(warning),
      })),
      vaults: vaults.map(({ name, region, url }) => ({ name, region, url })),
      sites: Object.keys(config.sites),
      active: config.active,
      objectives: config.objectives,
      resources,
      runbooks: runbooks.map(({ name, path, own }) => ({ name, path, own })),
    },
    text: lines.join('\n'),
  };
}

const columns: readonly Column<Protected>[] = [
  { title: 'RESOURCE', value: (resource) => resource.name },
  { title: 'KIND', value: (resource) => resource.kind },
  { title: 'BACKUP', value: (resource) => resource.schedule },
  { title: 'LOSES AT MOST', value: (resource) => formatDuration(resource.lossMs), align: 'right' },
  {
    title: 'ALLOWED',
    value: (resource) => (resource.rpoMs === undefined ? '-' : formatDuration(resource.rpoMs)),
    align: 'right',
  },
  { title: 'KEPT', value: keptText },
  {
    title: 'RECOVERS AT',
    value: (resource) => (resource.recoversAt.length === 0 ? 'nowhere' : list(resource.recoversAt)),
  },
];

/** `30 d, 14 daily, 12 monthly`. */
function keptText({ retentionMs, keep }: Protected): string {
  const rules = (['daily', 'weekly', 'monthly', 'yearly'] as const).flatMap((rule) =>
    keep[rule] === undefined ? [] : [`${keep[rule]} ${rule}`],
  );
  return [formatDuration(retentionMs), ...rules].join(', ');
}

/** Which runbooks there are, and which of them are one's own. */
function runbookLines(runbooks: readonly RunbookFile[], { runbooks: folder }: Config): string[] {
  const names = (own: boolean) => list(runbooks.filter((file) => file.own === own).map(({ name }) => name));
  return [
    ...(folder === undefined ? [] : [`Runbooks:  ${names(true) || 'none'} in ${folder}`]),
    `${folder === undefined ? 'Runbooks: ' : '          '} ${names(false) || 'none'} in ${shippedRunbooks}, with dr`,
  ];
}

function protectedBy(config: Config): Protected[] {
  const databases = Object.values(config.databases).map(
    (database): Protected => ({
      name: database.name,
      kind: 'database',
      schedule: database.wal.enabled
        ? `${database.schedule.text}, WAL every ${formatDuration(database.wal.flushEveryMs)}`
        : database.schedule.text,
      lossMs: database.wal.enabled ? database.wal.flushEveryMs : worstIntervalMs(database.schedule),
      rpoMs: database.rpoMs,
      retentionMs: database.retentionMs,
      keep: database.keep,
      recoversAt: Object.keys(database.recover),
    }),
  );
  const { data, configuration, objects } = config;
  const directories = [data, configuration, objects]
    .flatMap((section) => Object.values(section))
    .map(
      (directory): Protected => ({
        name: directory.name,
        kind: directory.kind,
        schedule: directory.schedule.text,
        lossMs: worstIntervalMs(directory.schedule),
        rpoMs: directory.rpoMs,
        retentionMs: directory.retentionMs,
        keep: directory.keep,
        recoversAt: Object.keys(directory.recover),
      }),
    );
  return [...databases, ...directories];
}
