import { delimiter } from 'node:path';
import { readActiveSite } from '../backup/active-site.ts';
import { newestBackups, newestOf } from '../backup/doctor/catalog.ts';
import { type DatabaseExamination, examineDatabase } from '../backup/doctor/database.ts';
import { examineDirectory } from '../backup/doctor/directory.ts';
import { examineHost, openFilesLimit } from '../backup/doctor/host.ts';
import { doctorIdentity } from '../backup/doctor/identity.ts';
import { isAbort } from '../base/errors.ts';
import { doubtful, type Finding, fromError, good } from '../base/finding.ts';
import { openCluster } from '../cluster/open.ts';
import { forSite, type SitePlaces } from '../config/sites.ts';
import type { Config } from '../config/types.ts';
import { type Area, countVerdicts, renderDoctor } from '../report/doctor.ts';
import { count } from '../report/values.ts';
import { checkRunbooks } from '../runbook/load.ts';
import { examineDatabaseRecovery, examineDirectoryRecovery, examineScratch } from '../steps/doctor-recovery.ts';
import { volumeAt } from '../steps/places.ts';
import { openRecovery } from '../steps/recovery-port.ts';
import { stepRegistry } from '../steps/registry.ts';
import { openTraffic } from '../traffic/open.ts';
import { KeyRing } from '../vault/keys.ts';
import { SealPool } from '../vault/seal-pool.ts';
import type { ObjectStore } from '../vault/store.ts';
import type { CommandContext, CommandResult } from './context.ts';
import { daemonClusterAreas } from './daemon-cluster.ts';
import { type Look, openLooks, quietLog } from './doctor-looks.ts';
import { examineVaults } from './doctor-vaults.ts';
import { workloadAreas } from './doctor-workloads.ts';
import type { DoctorOptions } from './options.ts';
import { configuredResources } from './resources.ts';
import { trafficPorts } from './traffic-ports.ts';

/** `dr doctor`: looks at everything the configuration names, all at once, each within its time; changes nothing in production. */
export async function run(given: CommandContext, _options: DoctorOptions): Promise<CommandResult> {
  const context = { ...given, log: quietLog(given.log) };
  const { config, site } = await context.loadConfig();
  const { look, within } = openLooks(context);
  const vaults = await examineVaults(context, config, within);
  try {
    const active = await activeSite(context, config, vaults.answering, look);
    const resources = configuredResources(config).map(({ name }) => name);
    const newest = newestBackups(vaults.answering, resources, context.log);
    const patient: Patient = { context, config, site, look, active: forSite(config, active.site), newest };
    const databases = databaseAreas(patient);
    const areas = await Promise.all([
      machine(patient, databases),
      look('configuration and runbooks', async () => [...active.findings, ...(await runbooks(config))]),
      ...vaults.areas,
      encryption(patient),
      ...databases.map(({ area }) => area),
      ...directoryAreas(patient),
      ...objectsAreas(patient),
      ...daemonClusterAreas(config, site, context, look),
      ...workloadAreas(config, { here: site, active: active.site }, context, look),
      ...recoveryAreas(patient, databases),
      ...trafficAreas(patient),
    ]);
    return result(context, active.site, areas);
  } finally {
    await vaults.close();
  }
}

/** What the looks at one system share. */
interface Patient {
  readonly context: CommandContext;
  readonly config: Config;
  /** The site this dr runs at. */
  readonly site: string;
  readonly look: Look;
  readonly active: SitePlaces;
  readonly newest: ReturnType<typeof newestBackups>;
}

interface DatabaseLook {
  readonly name: string;
  readonly area: Promise<Area>;
  readonly facts: Promise<DatabaseExamination['facts']>;
}

function result(context: CommandContext, active: string, areas: readonly Area[]): CommandResult {
  const counts = countVerdicts(areas);
  return {
    data: { version: context.version, activeSite: active, counts, areas },
    text: renderDoctor(areas),
    ...(counts.fail > 0 ? { failure: 'check-failed' as const } : {}),
  };
}

/** Who is active, as the vaults say; the configuration's word where they do not. */
async function activeSite(
  context: CommandContext,
  config: Config,
  stores: readonly ObjectStore[],
  look: Look,
): Promise<{ site: string; findings: readonly Finding[] }> {
  let site = config.active;
  const { findings } = await look('active site', async (signal) => {
    if (stores.length === 0)
      return [
        doubtful(
          `${site} is taken for the active site, as the configuration says: no vault can be asked`,
          'Nothing to do before the first backup; later, mend the vaults first.',
        ),
      ];
    const { active } = await readActiveSite(stores, signal);
    if (!active) return [good(`${site} is the active site by the configuration: nothing has failed over yet`)];
    if (!Object.hasOwn(config.sites, active.site)) {
      const next = `Add it under sites in ${context.configPath}, or correct its name.`;
      return [doubtful(`the vaults say that ${active.site} is active, which the configuration does not have`, next)];
    }
    site = active.site;
    return [good(`${site} is the active site since ${active.since} (${active.by})`)];
  });
  return { site, findings };
}

async function runbooks(config: Config): Promise<Finding[]> {
  try {
    const files = await checkRunbooks(config, stepRegistry);
    const own = files.filter((file) => file.own).length;
    return [
      good(
        `${count(files.length, 'runbook')} can be run${own === 0 ? '' : `, ${own} of them from ${config.runbooks}`}`,
      ),
    ];
  } catch (error) {
    return [fromError(error)];
  }
}

function machine({ context, config, look, newest }: Patient, databases: readonly DatabaseLook[]): Promise<Area> {
  return look('this machine', async () => {
    const stored = (await newest).newest.map(({ manifest }) => manifest.logicalBytes);
    const live = (await Promise.all(databases.map(({ facts }) => facts))).map((facts) => facts?.totalBytes ?? 0);
    const needs = [...stored, ...live].map((bytes) => ({ path: config.scratch, bytes }));
    const host = await examineHost({ nodeVersion: process.versions.node, openFiles: await openFilesLimit() });
    return [good(`dr ${context.version}`), ...host, ...(await examineScratch(config.scratch, needs))];
  });
}

function encryption({ context, config, site, look, active, newest }: Patient): Promise<Area> {
  return look('encryption', async () => {
    const identities = await context.loadIdentities().catch((error: unknown) => {
      if (isAbort(error)) throw error;
      return { error };
    });
    const { newest: backups, problems } = await newest;
    const needed = site !== active.site.name;
    return [...(await doctorIdentity({ policy: config.encryption, identities, newest: backups, needed })), ...problems];
  });
}

function databaseAreas({ context, look, active, newest }: Patient): DatabaseLook[] {
  return Object.values(active.databases).map(({ database, url }) => {
    const { name, wal } = database;
    let facts: DatabaseExamination['facts'];
    const area = look(`database ${name} at ${active.site.name}`, async (signal) => {
      const examined = await examineDatabase({
        name,
        url,
        walEnabled: wal.enabled,
        slot: wal.slot,
        newest: newest.then(({ newest: backups }) => newestOf(backups, name)),
        now: context.clock.now,
        log: context.log,
        signal,
      });
      facts = examined.facts;
      return examined.findings;
    });
    return { name, area, facts: area.then(() => facts) };
  });
}

/** Folders lie on the machines of the active site: elsewhere there is nothing to look at. */
function directoryAreas({ context, look, site, active }: Patient): Promise<Area>[] {
  return Object.values(active.directories).map(({ directory, path }) =>
    look(`${directory.kind} ${directory.name} at ${active.site.name}`, async (signal) => {
      if (site !== active.site.name) {
        return [good(`${path} is at site ${active.site.name}: run \`dr doctor\` there to look at it`)];
      }
      const { exclude, allowEmpty } = directory;
      return await examineDirectory({ path, exclude, allowEmpty, now: context.clock.now, signal });
    }),
  );
}

/** The cluster of the active site may not be reachable from elsewhere, and other roles count there. */
function objectsAreas({ context, look, site, active }: Patient): Promise<Area>[] {
  return Object.values(active.objects).map(({ objects, cluster: access }) =>
    look(`configuration ${objects.name} at ${active.site.name}`, async (signal) => {
      if (site !== active.site.name) {
        return [good(`its cluster is that of site ${active.site.name}: run \`dr doctor\` there to look at it`)];
      }
      const { examineObjects } = await import('../backup/doctor/objects.ts');
      const cluster = await openCluster({ ...access, env: context.env }, context.log);
      try {
        const onChange = objects.schedule.kind === 'on-change';
        return await examineObjects({ cluster, select: objects.select, onChange, signal });
      } finally {
        cluster.close();
      }
    }),
  );
}

/**
 * Where each other site would bring things up. This machine may not be of that site: unless it is named to be (--site), what is
 * missing here is a warning.
 */
function recoveryAreas(patient: Patient, databases: readonly DatabaseLook[]): Promise<Area>[] {
  const { context, config, active } = patient;
  const recovery = openRecovery({
    config,
    stores: [],
    keyRing: new KeyRing([]),
    pool: new SealPool(1),
    searchPath: [],
    log: context.log,
  });
  const here = context.site;
  const others = Object.keys(config.sites).filter((name) => name !== active.site.name);
  return others
    .filter((name) => here === undefined || here === name)
    .flatMap((name) => {
      const places = forSite(config, name);
      const adjust = here === name ? (findings: readonly Finding[]) => findings : fromElsewhere;
      const suffix = here === name ? '' : ', seen from this machine';
      return [
        ...Object.values(places.databases).flatMap(({ database, target }) => {
          // What lies in a volume is looked at in its cluster.
          if (!target || volumeAt(config, database.name, name)) return [];
          return [
            patient.look(`recovery of ${database.name} at ${name}${suffix}`, async (signal) => {
              const facts = await databases.find((each) => each.name === database.name)?.facts;
              const manifest = newestOf((await patient.newest).newest, database.name);
              const findings = await examineDatabaseRecovery({
                name: database.name,
                site: name,
                target,
                binaries: config.postgresql.binaries,
                searchPath: (context.env['PATH'] ?? '').split(delimiter).filter((each) => each !== ''),
                expected: expectedOf(facts, manifest),
                recovery,
                signal,
              });
              return adjust(findings);
            }),
          ];
        }),
        ...Object.values(places.directories).map(({ directory, path }) =>
          patient.look(`recovery of ${directory.name} at ${name}${suffix}`, async (signal) => {
            const bytes = newestOf((await patient.newest).newest, directory.name)?.logicalBytes;
            return adjust(await examineDirectoryRecovery({ name: directory.name, path, bytes, recovery, signal }));
          }),
        ),
      ];
    });
}

function expectedOf(
  facts: DatabaseExamination['facts'],
  manifest: ReturnType<typeof newestOf>,
): { major: number; bytes: number } | undefined {
  if (facts) {
    const bytes = Math.max(facts.totalBytes, manifest?.logicalBytes ?? 0);
    return { major: Math.floor(facts.versionNumber / 10_000), bytes };
  }
  return manifest?.database && { major: manifest.database.majorVersion, bytes: manifest.logicalBytes };
}

function fromElsewhere(findings: readonly Finding[]): readonly Finding[] {
  return findings.map((finding) => (finding.verdict === 'fail' ? { ...finding, verdict: 'warn' } : finding));
}

function trafficAreas({ context, config, look }: Patient): Promise<Area>[] {
  return Object.values(config.traffic).map((traffic) =>
    look(`traffic ${traffic.name}`, async (signal) => {
      const driver = openTraffic(traffic, context.log, {}, trafficPorts(context));
      try {
        const findings = await driver.doctor(signal);
        return findings.map(({ ok, what, next, severity }): Finding => {
          return { verdict: ok ? 'ok' : severity === 'warning' ? 'warn' : 'fail', what, next };
        });
      } finally {
        driver.close();
      }
    }),
  );
}
