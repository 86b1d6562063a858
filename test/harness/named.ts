import { execFileSync, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { encode } from 'dns-packet';
import { startProcess, type TestProcess } from './process.ts';
import { tempDir } from './temp.ts';

/** The version of BIND's `named` on this machine, `9.18.49`; undefined when it is not installed. */
export const bindVersion = versionOf('/usr/sbin/named', ['-v'], /BIND (\d+\.\d+\.\d+)/);
/** The version of Knot DNS on this machine; undefined when it is not installed. */
export const knotVersion = versionOf('/usr/sbin/knotd', ['--version'], /(\d+\.\d+\.\d+)/);
const powerDnsSchema = '/usr/share/doc/pdns-backend-sqlite3/schema.sqlite3.sql';
/** The version of PowerDNS on this machine; undefined when it or its SQLite backend is not installed. */
export const powerDnsVersion = existsSync(powerDnsSchema)
  ? versionOf('/usr/sbin/pdns_server', ['--version'], /Server (\d+\.\d+\.\d+)/)
  : undefined;

export interface NameServerOptions {
  /** The zone that is served, `example.test`. */
  readonly zone: string;
  /** Lines of a master file beside SOA and NS. */
  readonly records?: readonly string[];
  /** Addresses of `ns1`, `ns2`, … of the zone; default the server's own. */
  readonly nameservers?: readonly string[];
  /** A secondary of this server instead of a primary. It follows only when it is told (`notify`). */
  readonly primary?: NameServer;
  readonly algorithm?: 'hmac-sha256' | 'hmac-sha512';
  /** What the key `dr` may change: BIND's update-policy, or further lines of Knot's acl; default: any record of the zone. */
  readonly policy?: string;
}

/** A real name server that takes updates signed with its key. */
export interface NameServer extends AsyncDisposable {
  /** `127.0.0.1:5300`. */
  readonly server: string;
  readonly address: string;
  readonly port: number;
  readonly key: { readonly name: string; readonly algorithm: 'hmac-sha256' | 'hmac-sha512'; readonly secret: string };
  readonly process: TestProcess;
  /** Tells a secondary that its primary has a new serial. */
  notify(): Promise<void>;
  stop(): Promise<void>;
}

/** Starts BIND in the foreground on 127.0.0.1, with its files in a directory of the test run. */
export async function startNamed(options: NameServerOptions): Promise<NameServer> {
  const directory = await tempDir('named');
  // A secondary is ready once it has its first copy.
  const isReady = options.primary ? /Transfer status: success/ : /all zones loaded\n[\s\S]*running\n/;
  return await startServer(options, isReady, (facts) => {
    const { zone, policy = 'grant dr zonesub ANY;' } = options;
    const { primary } = options;
    writeFileSync(join(directory, 'zone.db'), zoneFile(options, facts.address));
    const role = primary
      ? `type secondary; file "copy.db"; primaries port ${primary.port} { ${primary.address} key dr; }; allow-notify { any; };`
      : `type primary; file "zone.db"; update-policy { ${policy} };`;
    writeFileSync(
      join(directory, 'named.conf'),
      `options {
  directory "${directory}"; pid-file none; session-keyfile none; lock-file none;
  listen-on port ${facts.port} { ${facts.address}; }; listen-on-v6 { none; };
  recursion no; dnssec-validation no; notify no; allow-transfer { key dr; };
};
controls { };
key "dr" { algorithm ${facts.key.algorithm}; secret "${facts.key.secret}"; };
zone "${zone}" { ${role} };
`,
    );
    return startProcess('/usr/sbin/named', ['-g', '-n', '1', '-c', join(directory, 'named.conf')]);
  });
}

/** Starts Knot DNS in the foreground in the same way; primaries only. */
export async function startKnot(options: NameServerOptions): Promise<NameServer> {
  const directory = await tempDir('knot');
  return await startServer(options, /server started/, (facts) => {
    writeFileSync(join(directory, 'zone.db'), zoneFile(options, facts.address));
    writeFileSync(
      join(directory, 'knot.conf'),
      `server:
  rundir: "${directory}"
  listen: "${facts.address}@${facts.port}"
  udp-workers: 1
  tcp-workers: 1
  background-workers: 1
database:
  storage: "${directory}"
key:
  - id: dr
    algorithm: ${facts.key.algorithm}
    secret: ${facts.key.secret}
acl:
  - id: update
    key: dr
    action: update
${(options.policy ?? '').replace(/^(?=.)/gm, '    ')}
zone:
  - domain: ${options.zone}
    storage: "${directory}"
    file: zone.db
    acl: update
log:
  - target: stderr
    any: info
`,
    );
    return startProcess('/usr/sbin/knotd', ['-c', join(directory, 'knot.conf')]);
  });
}

/** Starts PowerDNS in the foreground in the same way, with its zone in SQLite; primaries only. */
export async function startPowerDns(options: NameServerOptions): Promise<NameServer> {
  const directory = await tempDir('pdns');
  const { DatabaseSync } = await import('node:sqlite');
  const database = new DatabaseSync(join(directory, 'pdns.sqlite3'));
  database.exec(readFileSync(powerDnsSchema, 'utf8'));
  database.close();
  return await startServer(options, /operating unthreaded/, (facts) => {
    writeFileSync(join(directory, 'zone.db'), zoneFile(options, facts.address));
    writeFileSync(
      join(directory, 'pdns.conf'),
      `launch=gsqlite3
gsqlite3-database=${directory}/pdns.sqlite3
socket-dir=${directory}
local-address=${facts.address}
local-port=${facts.port}
dnsupdate=yes
allow-dnsupdate-from=127.0.0.0/8
cache-ttl=0
query-cache-ttl=0
negquery-cache-ttl=0
zone-cache-refresh-interval=0
receiver-threads=1
distributor-threads=1
loglevel=5
log-dns-details=no
disable-syslog=yes
`,
    );
    const run = (...args: string[]) =>
      execFileSync('/usr/bin/pdnsutil', [`--config-dir=${directory}`, ...args], { stdio: 'ignore' });
    run('load-zone', options.zone, join(directory, 'zone.db'));
    run('import-tsig-key', facts.key.name, facts.key.algorithm, facts.key.secret);
    run('set-meta', options.zone, 'TSIG-ALLOW-DNSUPDATE', facts.key.name);
    return startProcess('/usr/sbin/pdns_server', [`--config-dir=${directory}`, '--daemon=no', '--guardian=no']);
  });
}

async function startServer(
  options: NameServerOptions,
  isReady: RegExp,
  start: (facts: Pick<NameServer, 'address' | 'port' | 'key'>) => TestProcess,
): Promise<NameServer> {
  const address = '127.0.0.1';
  const algorithm = options.algorithm ?? 'hmac-sha256';
  const key = options.primary?.key ?? { name: 'dr', algorithm, secret: randomBytes(32).toString('base64') };
  for (let attempt = 1; ; attempt++) {
    const port = await freePort(address);
    const process = start({ address, port, key });
    try {
      await process.waitFor(isReady);
    } catch (error) {
      // Somebody else may have taken the port in between.
      await process.kill9();
      if (attempt === 3) throw error;
      continue;
    }
    const stop = async () => void (await process.stop('SIGTERM'));
    return {
      server: `${address}:${port}`,
      address,
      port,
      key,
      process,
      notify: () => notify(address, port, options.zone),
      stop,
      [Symbol.asyncDispose]: stop,
    };
  }
}

function zoneFile({ zone, records = [], nameservers }: NameServerOptions, address: string): string {
  const servers = nameservers ?? [address];
  return [
    `$ORIGIN ${zone}.`,
    '$TTL 30',
    `@ IN SOA ns1 hostmaster 1 86400 7200 1209600 5`,
    ...servers.map((_, i) => `@ IN NS ns${i + 1}`),
    ...servers.map((ns, i) => `ns${i + 1} IN A ${ns}`),
    ...records,
    '',
  ].join('\n');
}

/** Sends a NOTIFY (RFC 1996), as a primary would, and waits for its answer. */
async function notify(address: string, port: number, zone: string): Promise<void> {
  const socket = createSocket('udp4');
  try {
    const answered = new Promise<void>((resolve, reject) => {
      socket.once('message', () => resolve());
      socket.once('error', reject);
    });
    const flags = (4 << 11) | (1 << 10);
    const message = encode({ type: 'query', id: 1, flags, questions: [{ type: 'SOA', name: zone, class: 'IN' }] });
    socket.send(message, port, address);
    await answered;
  } finally {
    socket.close();
  }
}

async function freePort(address: string): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, address, resolve);
  });
  const bound = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof bound === 'object' && bound !== null ? bound.port : 0;
}

function versionOf(program: string, args: readonly string[], pattern: RegExp): string | undefined {
  try {
    const { stdout, stderr } = spawnSync(program, args, { encoding: 'utf8' });
    return pattern.exec(`${stdout}${stderr}`)?.[1];
  } catch {
    return undefined;
  }
}
