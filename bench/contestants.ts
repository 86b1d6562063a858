import { chmodSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { generateIdentity, identityToRecipient } from 'age-encryption';
import { serverUser } from '../test/harness/npm-postgres.ts';
import { own, type TestPostgres } from '../test/harness/postgres.ts';
import { nodeBinary } from '../test/harness/process.ts';
import { tempDir } from '../test/harness/temp.ts';
import { type Command, run } from './measure.ts';

/** A program that backs up and restores one cluster. */
export interface Contestant {
  readonly name: string;
  /** Where its backups lie. */
  readonly repository: string;
  backup(): Command;
  /** Makes its next backup a full one, where it would build on the last. */
  forget?(): void;
  /** Restores the newest backup into `target`, a directory that is there and empty. */
  restore(target: string): Command;
}

export interface DrContestant extends Contestant {
  daemon(): Command;
}

const COMPRESSION_LEVEL = 3;
export const PROCESSES = 2;

/** Files of a `dr`: its configuration, identity and the directory of each vault. */
export interface DrHome {
  readonly config: string;
  readonly identityFile: string;
  readonly vaults: ReadonlyMap<string, string>;
}

/** A configuration with one encrypted file vault for each name, for one database or none; `more` goes over its defaults. */
export async function drHome(
  server: TestPostgres | undefined,
  vaultNames: readonly string[],
  more: object,
): Promise<DrHome> {
  const home = await tempDir('dr');
  const vaults = new Map(vaultNames.map((name) => [name, join(home, `vault-${name}`)]));
  const identityFile = join(home, 'identity');
  const identity = await generateIdentity();
  writeFileSync(identityFile, `${identity}\n`, { mode: 0o600 });
  const config = join(home, 'dr.yaml');
  const entries = [...vaults].map(([name, path]) => [name, { region: `bench-${name}`, url: pathToFileURL(path).href }]);
  const [first] = vaultNames;
  writeFileSync(
    config,
    JSON.stringify({
      version: 1,
      vaults: Object.fromEntries(entries),
      allowSingleRegion: true,
      sites: { here: { region: `bench-${first}`, vault: first } },
      active: 'here',
      scratch: join(home, 'scratch'),
      encryption: { recipients: [await identityToRecipient(identity)] },
      ...(server ? { databases: { orders: { url: server.url } } } : {}),
      backup: { workers: PROCESSES, compressionLevel: COMPRESSION_LEVEL },
      verification: { schedule: 'never' },
      daemon: { listen: '127.0.0.1:0' },
      ...more,
    }),
  );
  return { config, identityFile, vaults };
}

/** `dr` of a checkout, run as a command, with one encrypted file vault; `more` goes over the defaults of its configuration. */
export async function drOf(checkout: string, name: string, server: TestPostgres, more = {}): Promise<DrContestant> {
  const { config, identityFile, vaults } = await drHome(server, ['east'], more);
  const start = startOfDr(checkout);
  const command = (...args: string[]): Command => ({
    program: nodeBinary,
    args: [...start.args, ...args, '--config', config],
    env: { ...start.env, DR_IDENTITY_FILE: identityFile },
  });
  return {
    name,
    repository: vaults.get('east') ?? '',
    backup: () => command('backup', 'orders'),
    forget: () => rmSync(join(dirname(config), 'scratch', 'previous'), { recursive: true, force: true }),
    restore: (target) => command('restore', 'orders', '--to', target),
    daemon: () => command('daemon'),
  };
}

/** How package.json's script `dr` of a checkout starts it: variables and what comes before the arguments. */
export function startOfDr(checkout: string): { readonly env: Record<string, string>; readonly args: string[] } {
  const { scripts }: { scripts: Record<string, string> } = JSON.parse(
    readFileSync(join(checkout, 'package.json'), 'utf8'),
  );
  const words = (scripts.dr ?? '').split(' ');
  const node = words.indexOf('node');
  // A relative path is one in the checkout.
  const absolute = (text: string) => (text.includes('/') ? join(checkout, text) : text);
  const variables = words.slice(0, node).map((word) => word.split('=', 2) as [string, string]);
  return {
    env: Object.fromEntries(variables.map(([name, text]) => [name, absolute(text)])),
    args: words.slice(node + 1).map(absolute),
  };
}

const pgbackrest = '/usr/bin/pgbackrest';

/** Files of the peer: its configuration, repository, locks and logs. */
export interface PeerHome {
  readonly repository: string;
  readonly config: string;
}

/** The peer's place, made before the server starts: its archive_command needs it. */
export async function peerHome(): Promise<PeerHome> {
  const home = await tempDir('peer');
  own(home);
  for (const name of ['repository', 'lock', 'log', 'spool']) {
    mkdirSync(join(home, name));
    own(join(home, name));
  }
  return { repository: join(home, 'repository'), config: join(home, 'pgbackrest.conf') };
}

/** What postgresql.conf needs for the peer's backups; `archiveTimeout` in seconds. */
export function peerSettings(peer: PeerHome, archiveTimeout = 0): Record<string, string | number> {
  return {
    archive_mode: 'on',
    archive_command: `${pgbackrest} --config=${peer.config} --stanza=bench archive-push %p`,
    archive_timeout: archiveTimeout,
  };
}

export async function writePeerConfig(
  peer: PeerHome,
  server: Pick<TestPostgres, 'dataDirectory' | 'socketDirectory' | 'port'>,
) {
  const home = join(peer.repository, '..');
  const lines = [
    '[global]',
    `repo1-path=${peer.repository}`,
    'repo1-cipher-type=aes-256-cbc',
    'repo1-cipher-pass=the-benchmark-has-no-secrets',
    // More than any series of rounds makes: nothing is expired while the clock runs.
    'repo1-retention-full=9999999',
    'compress-type=zst',
    `compress-level=${COMPRESSION_LEVEL}`,
    `process-max=${PROCESSES}`,
    'start-fast=y',
    `lock-path=${join(home, 'lock')}`,
    `log-path=${join(home, 'log')}`,
    `spool-path=${join(home, 'spool')}`,
    'log-level-console=warn',
    'log-level-file=off',
    '[bench]',
    `pg1-path=${server.dataDirectory}`,
    `pg1-socket-path=${server.socketDirectory}`,
    `pg1-port=${server.port}`,
    'pg1-user=postgres',
  ];
  writeFileSync(peer.config, `${lines.join('\n')}\n`);
  chmodSync(peer.config, 0o644);
}

/** pgBackRest with one encrypted repository (a first `incr` is a full backup); call `writePeerConfig` first. */
export async function peerOf(peer: PeerHome, bundle: boolean, type: 'full' | 'incr' = 'full'): Promise<Contestant> {
  const command = (...args: string[]): Command => ({
    program: pgbackrest,
    args: [`--config=${peer.config}`, '--stanza=bench', ...args],
    user: serverUser,
  });
  return {
    name: bundle ? 'pgBackRest, bundled' : 'pgBackRest',
    repository: peer.repository,
    backup: () => command('backup', `--type=${type}`, ...(bundle ? ['--repo1-bundle'] : [])),
    restore: (target) => command('restore', `--pg1-path=${target}`, '--log-level-console=error'),
  };
}

/** Creates the stanza and returns the version of the peer. */
export async function preparePeer(peer: PeerHome): Promise<string> {
  await run({
    program: pgbackrest,
    args: [`--config=${peer.config}`, '--stanza=bench', 'stanza-create'],
    user: serverUser,
  });
  return (await run({ program: pgbackrest, args: ['version'] })).trim();
}
