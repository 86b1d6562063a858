import { formatDuration } from '../src/base/units.ts';
import type { RunReport } from '../src/runbook/run-report.ts';
import type { Narrator } from './narrator.ts';

/** One claim of the story, and whether it was found true. */
export interface Fact {
  readonly what: string;
  readonly ok: boolean;
  readonly detail: string;
}

/** Everything measured. Times in milliseconds, moments in milliseconds since 1970. */
export interface DemoReport {
  /** True when every fact is. */
  readonly ok: boolean;
  readonly facts: readonly Fact[];
  readonly databaseBytes: number;
  readonly orders: {
    /** Confirmed to customers before the disaster. */
    readonly confirmed: number;
    /** Of these, missing at west. */
    readonly lost: number;
    /** From the oldest lost order to the disaster; 0 when none is lost. */
    readonly lostMs: number;
    /** Confirmed at west afterwards. */
    readonly confirmedAtWest: number;
  };
  readonly disasterAtMs: number;
  /** From the disaster to the first order that a customer could place at west. */
  readonly rto: { readonly achievedMs: number | undefined; readonly objectiveMs: number; readonly met: boolean };
  /** From the oldest lost order to the disaster. */
  readonly rpo: { readonly achievedMs: number; readonly objectiveMs: number; readonly met: boolean };
  /** Where the time of the RTO went. */
  readonly stages: ReadonlyArray<{ readonly name: string; readonly ms: number | undefined }>;
  /** dr's own report of the run. */
  readonly run: RunReport;
  readonly totalMs: number;
}

/** Tells the end of the story. */
export function tell(report: DemoReport, narrator: Narrator): void {
  const { orders, rto, rpo } = report;
  narrator.chapter('The bill');
  for (const { ok, what, detail } of report.facts)
    narrator.say(`  ${ok ? narrator.green('✓') : narrator.red('✗ NOT TRUE:')} ${what}: ${detail}`);
  const lost =
    orders.lost === 0
      ? 'none'
      : `${orders.lost} of ${orders.confirmed} confirmed orders, those of the last ${formatDuration(orders.lostMs)}`;
  narrator.say('');
  narrator.say(`  Lost   ${lost}`);
  narrator.say('');
  const row = (name: string, objective: number, achieved: number | undefined, met: boolean) =>
    narrator.say(
      `  ${name}   objective ${formatDuration(objective).padEnd(8)} achieved ${(achieved === undefined ? '-' : formatDuration(achieved)).padEnd(8)} ${met ? narrator.green('met') : narrator.red('MISSED')}`,
    );
  row('RTO', rto.objectiveMs, rto.achievedMs, rto.met);
  row('RPO', rpo.objectiveMs, rpo.achievedMs, rpo.met);
  narrator.say('');
  narrator.say(
    `  Time by stage   ${report.stages.map(({ name, ms }) => `${name} ${ms === undefined ? '-' : formatDuration(ms)}`).join(' · ')}`,
  );
  narrator.say('');
  narrator.say(
    report.ok
      ? narrator.bold(
          `  The shop survived the loss of a region. The whole demo took ${formatDuration(report.totalMs)}.`,
        )
      : narrator.red('  The story is not true: see what is marked above.'),
  );
}
