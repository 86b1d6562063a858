import { cpSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { generateIdentity, identityToRecipient } from 'age-encryption';
import { silentLog } from '../../src/base/log.ts';
import { openVault } from '../../src/vault/open.ts';
import type { ObjectStore } from '../../src/vault/store.ts';
import type { TestPostgres } from '../harness/postgres.ts';
import { startNode, type TestProcess } from '../harness/process.ts';
import { tempDir } from '../harness/temp.ts';

const main = join(import.meta.dirname, '../../src/main.ts');
const brisk = join(import.meta.dirname, 'brisk-daemon.ts');

/** What the real daemon protects in these tests: a server, two directories, two vaults, a configuration file. */
export interface DaemonTestWorld {
  readonly directory: string;
  readonly config: string;
  readonly identity: string;
  readonly vaults: { readonly east: ObjectStore; readonly west: ObjectStore };
  readonly uploads: string;
  readonly settings: string;
  /** Writes the configuration anew, changed. */
  configure(edit?: (text: string) => string): void;
  /** Starts `dr daemon` at a site. */
  start(site?: string, env?: Readonly<Record<string, string>>): Promise<RunningDaemon>;
  /** The same, but it asks the vaults five times a second. */
  startBrisk(site?: string, env?: Readonly<Record<string, string>>): Promise<RunningDaemon>;
}

export interface RunningDaemon extends AsyncDisposable {
  readonly process: TestProcess;
  readonly url: string;
  get(path: string): Promise<{ readonly status: number; readonly text: string }>;
  /** Asks `/state` until it fulfils the condition; a daemon that ends meanwhile fails the test. */
  until(what: string, condition: (state: DaemonState) => boolean): Promise<DaemonState>;
}

/** `/state`, as far as tests look at it. */
export interface DaemonState {
  readonly leader?: { readonly role: string; readonly holder: string; readonly generation: number };
  readonly clusterJobs?: ReadonlyArray<{
    readonly verb: string;
    readonly resource: string;
    readonly job: string;
    readonly pod?: string;
    readonly detail?: string;
  }>;
  readonly role?: { readonly role: string; readonly active?: { readonly site: string; readonly generation: number } };
  readonly jobs?: ReadonlyArray<{
    readonly name: string;
    readonly working: boolean;
    readonly runs: number;
    readonly failures: number;
    readonly lastSuccess?: string;
    readonly lastError?: string;
  }>;
  readonly services?: ReadonlyArray<{ readonly name: string; readonly state: string }>;
  readonly watching?: ReadonlyArray<{ readonly objects: number; readonly troubles: readonly string[] }>;
  readonly wal?: ReadonlyArray<{ readonly resource: string; readonly status?: { readonly state: string } }>;
}

export function jobOf(state: DaemonState, name: string) {
  return state.jobs?.find((job) => job.name === name);
}

/** True when the named jobs have had a success each. */
export function haveSucceeded(state: DaemonState, ...names: string[]): boolean {
  return names.every((name) => jobOf(state, name)?.lastSuccess !== undefined);
}

export async function daemonWorld(
  east: Pick<TestPostgres, 'url'>,
  west: { readonly port: number; readonly url: string } = { port: 1, url: east.url },
): Promise<DaemonTestWorld> {
  const directory = await tempDir('daemon');
  const uploads = join(directory, 'uploads');
  const settings = join(directory, 'settings');
  for (const path of [uploads, settings]) mkdirSync(path);
  writeFileSync(join(settings, 'app.conf'), 'colour = blue\n');
  for (let i = 0; i < 20; i++) writeFileSync(join(uploads, `${i}.bin`), Buffer.alloc(20_000, i));
  const identity = await generateIdentity();
  const recipient = await identityToRecipient(identity);
  const config = join(directory, 'dr.yaml');
  const text = `version: 1
objectives: { rto: 1h, rpo: 15m }
vaults:
  east: { region: r-east, url: "file://${directory}/vault-east" }
  west: { region: r-west, url: "file://${directory}/vault-west" }
sites:
  east: { region: r-east, vault: east }
  west: { region: r-west, vault: west }
active: east
encryption: { recipients: ["${recipient}"] }
databases:
  orders:
    url: "${east.url}"
    schedule: every 1 minute
    retention: 30 days
    wal: { flushEvery: 200ms }
    recover: { west: { dataDirectory: ${directory}/west/orders, port: ${west.port}, url: "${west.url}" } }
data:
  uploads: { path: ${uploads}, schedule: daily, retention: 90 days, recover: { west: { path: ${directory}/west/uploads } } }
configuration:
  settings: { path: ${settings}, schedule: on change after 100ms, retention: 1 year, recover: { west: { path: ${directory}/west/settings } } }
verification: { schedule: never }
daemon: { listen: "127.0.0.1:0" }
scratch: ${directory}/scratch
`;
  const configure = (edit: (text: string) => string = (same) => same) => writeFileSync(config, edit(text));
  configure();
  const vault = (name: string) =>
    openVault(
      {
        name,
        region: `r-${name}`,
        url: `file://${directory}/vault-${name}`,
        endpoint: undefined,
        forcePathStyle: false,
        credentials: undefined,
      },
      silentLog,
    );
  const start = async (site = 'east', env = {}) => await startDaemon(main, config, site, env);
  const startBrisk = async (site = 'east', env = {}) => await startDaemon(brisk, config, site, env);
  return {
    directory,
    config,
    identity,
    vaults: { east: vault('east'), west: vault('west') },
    uploads,
    settings,
    configure,
    start,
    startBrisk,
  };
}

/** Starts `dr daemon` (the script says which) with a configuration that listens on port 0. */
export async function startDaemon(script: string, config: string, site: string, env: object): Promise<RunningDaemon> {
  const daemon = startNode(script, ['daemon', '--config', config, '--site', site], { env: { ...process.env, ...env } });
  const [, url = ''] = await daemon.waitFor(/"url":"(http:[^"]+)"/);
  const get = async (path: string) => {
    const response = await fetch(url + path);
    return { status: response.status, text: await response.text() };
  };
  return {
    process: daemon,
    url,
    get,
    until: async (what, condition) => {
      let ended = '';
      void daemon.ended.then(({ code, signal, stderr }) => {
        ended = `${code ?? signal}\n${stderr}`;
      });
      const untilMs = Date.now() + 60_000;
      for (let state: DaemonState = {}; ; ) {
        if (ended !== '') throw new Error(`the daemon ended before: ${what}: ${ended}`);
        if (Date.now() > untilMs)
          throw new Error(`after a minute still not: ${what}: ${JSON.stringify(state, null, 1)}`);
        state = JSON.parse((await get('/state')).text);
        if (condition(state)) return state;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    },
    [Symbol.asyncDispose]: async () => void (await daemon.kill9()),
  };
}

/** Writes a directory of the east site's at the west site, as a restore would. */
export function copyToWest(world: DaemonTestWorld, name: 'uploads' | 'settings'): void {
  cpSync(world[name], join(world.directory, 'west', name), { recursive: true });
}
