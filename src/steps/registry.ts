import { assessFreshness } from './assess-freshness.ts';
import { assessResources } from './assess-resources.ts';
import { assessScope } from './assess-scope.ts';
import { assessVaults } from './assess-vaults.ts';
import { assessWitnesses } from './assess-witnesses.ts';
import { checkHttp } from './check-http.ts';
import { checkSql } from './check-sql.ts';
import { gitopsPause, gitopsResume } from './cluster/gitops-pause.ts';
import { objectApply } from './cluster/object-apply.ts';
import { workloadRollout } from './cluster/workload-rollout.ts';
import { workloadScale } from './cluster/workload-scale.ts';
import { commandRun } from './command-run.ts';
import type { StepKind } from './contract.ts';
import { databaseCompare } from './database-compare.ts';
import { databaseCatchUp, databaseDrain } from './database-drain.ts';
import { databaseFence } from './database-fence.ts';
import { databaseOpen } from './database-open.ts';
import { databasePromote } from './database-promote.ts';
import { databaseQuiesce } from './database-quiesce.ts';
import { databaseReplay } from './database-replay.ts';
import { databaseRestore } from './database-restore.ts';
import { databaseSlot } from './database-slot.ts';
import { configurationRestore, dataRestore } from './directory-restore.ts';
import { holdSet } from './hold-set.ts';
import { monitorHealth } from './monitor-health.ts';
import { notify } from './notify.ts';
import { recordActive } from './record-active.ts';
import { siteActivate } from './site-activate.ts';
import { siteVacate } from './site-vacate.ts';
import { trafficRedirect, trafficVerify } from './traffic.ts';
import { trafficShift } from './traffic-shift.ts';
import { wait } from './wait.ts';

/** Every kind of step that a runbook can use, by name, in the order of a recovery. */
export const stepRegistry: ReadonlyMap<string, StepKind> = new Map(
  [
    assessVaults,
    assessWitnesses,
    assessResources,
    assessScope,
    assessFreshness,
    holdSet,
    siteVacate,
    siteActivate,
    databaseRestore,
    dataRestore,
    configurationRestore,
    databaseQuiesce,
    databaseDrain,
    databaseCatchUp,
    checkSql,
    databaseCompare,
    databaseFence,
    databaseReplay,
    databasePromote,
    databaseOpen,
    databaseSlot,
    recordActive,
    gitopsPause,
    gitopsResume,
    workloadScale,
    workloadRollout,
    objectApply,
    checkHttp,
    trafficRedirect,
    trafficShift,
    trafficVerify,
    monitorHealth,
    wait,
    commandRun,
    notify,
  ].map((kind) => [kind.name, kind]),
);
