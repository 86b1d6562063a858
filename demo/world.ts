import { randomBytes } from 'node:crypto';
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { generateIdentity, identityToRecipient } from 'age-encryption';
import { serverUser } from '../test/harness/npm-postgres.ts';
import { Customers } from './customers.ts';
import { createCluster, fillDatabase, findPrograms, type SiteDatabase, startServer, urlOf } from './database.ts';
import { makeSettings, makeUploads, readTree, sizeText } from './files.ts';
import type { Narrator } from './narrator.ts';
import { chooseNetwork, clone, type Network, type Place } from './places.ts';
import { type Running, startIn, waitForOutput } from './processes.ts';
import { configurationText, type Folders, shopName, zone } from './settings.ts';

/** Customers order this often, milliseconds: 20 orders a second. */
const orderEveryMs = 50;

/** Everything that the story plays with. */
export interface World {
  readonly root: string;
  readonly network: Network;
  readonly folders: Folders;
  readonly database: SiteDatabase;
  readonly databaseBytes: number;
  readonly eastServer: Running;
  readonly eastShop: Running;
  readonly nameserver: string;
  readonly customers: Customers;
  /** Environment of dr at each site: the same secrets; only west has the identity that opens the vaults. */
  readonly drEnv: { readonly east: NodeJS.ProcessEnv; readonly west: NodeJS.ProcessEnv };
}

/** Builds both sites, the vaults and the DNS, and lets customers order at east. */
export async function buildWorld(place: Place, narrator: Narrator, env: NodeJS.ProcessEnv): Promise<World> {
  const { root } = place;
  // The harness puts what it has to make (a PostgreSQL that its user can reach) into the world too.
  process.env['DR_TEST_ROOT'] = root;
  mkdirSync(join(root, 'processes'));
  const folders = makeFolders(root);
  const network = await chooseNetwork();
  const secret = randomBytes(16).toString('hex');
  const programs = await findPrograms((env['PATH'] ?? '').split(delimiter));
  const passwords = { postgres: newPassword(), shop: newPassword(), dr: newPassword() };
  const database = {
    root,
    programs,
    dataDirectory: folders.east.database,
    port: network.databasePorts.east,
    passwords,
  };
  // Nothing of the caller's environment (AWS profiles, DR_…) takes part.
  const plainEnv = { PATH: env['PATH'], HOME: root, LANG: 'C.UTF-8' };

  const { server, bytes } = await narrator.step(
    `Site east: PostgreSQL ${programs.major} with years of orders and invoices`,
    async (detail) => {
      await createCluster(database);
      const server = await startServer(database, plainEnv);
      return { server, bytes: await fillDatabase(database, detail) };
    },
    ({ bytes }) => `${Math.round(bytes / 1e6)} MB`,
  );

  await narrator.step(
    'Site east: uploads and configuration',
    async () => {
      await makeUploads(folders.east.uploads);
      await makeSettings(folders.east.settings);
      return [await readTree(folders.east.uploads), await readTree(folders.east.settings)] as const;
    },
    ([uploads, settings]) => `${sizeText(uploads)}; ${settings.digests.size} files of settings`,
  );

  const dns = await narrator.step(
    `DNS: ${shopName}, TTL ${zone.ttlSeconds} s, behind a Route 53 endpoint`,
    async () => await startDns(root, network, plainEnv),
    ({ nameserver }) => `points to east (${network.east.published}), served at ${nameserver}`,
  );

  const westVault = await narrator.step(
    'Vaults: east is a folder of site east, west an S3 bucket in the other region',
    async () => await startVault(root, folders.west.vault, { ...plainEnv, DEMO_S3_SECRET: secret }),
    () => 'both empty',
  );

  const identity = await generateIdentity();
  const recipient = await identityToRecipient(identity);
  writeFileSync(folders.west.identity, `# created by the demo\n${identity}\n`, { mode: 0o600 });
  const osUser = serverUser === undefined ? undefined : userName(serverUser.uid);
  writeFileSync(
    folders.config,
    configurationText({ recipient, network, folders, westVault, dns, binaries: programs.bin, serverUser: osUser }),
  );

  const eastShop = await narrator.step(
    'The shop at both sites',
    async () => {
      const east = await startShop(root, 'east', folders, network, urlOf(database, 'shop'), plainEnv);
      const westUrl = urlOf({ passwords, port: network.databasePorts.west }, 'shop');
      await startShop(root, 'west', folders, network, westUrl, plainEnv);
      return east;
    },
    () => 'east sells; west is deployed and has no database yet',
  );

  const customers = new Customers({
    name: shopName,
    nameserver: dns.nameserver,
    route: (address) => (address === network.west.published ? network.west : network.east),
    everyMs: orderEveryMs,
  });
  customers.start();
  const drEnv = {
    ...plainEnv,
    AWS_EC2_METADATA_DISABLED: 'true',
    ORDERS_DATABASE_URL: urlOf(database, 'dr'),
    DEMO_S3_SECRET: secret,
    DR_CONFIG: folders.config,
    ...(env['NO_COLOR'] ? { NO_COLOR: env['NO_COLOR'] } : {}),
    ...(env['TERM'] ? { TERM: env['TERM'] } : {}),
  };
  return {
    root,
    network,
    folders,
    database,
    databaseBytes: bytes,
    eastServer: server,
    eastShop,
    nameserver: dns.nameserver,
    customers,
    drEnv: {
      east: { ...drEnv, DR_SITE: 'east' },
      // Its own report names what it went on without; the log would say it again.
      west: { ...drEnv, DR_SITE: 'west', DR_IDENTITY_FILE: folders.west.identity, DR_LOG_LEVEL: 'error' },
    },
  };
}

function makeFolders(root: string): Folders {
  const site = (name: string) => {
    const home = join(root, name);
    mkdirSync(home);
    return {
      home,
      database: join(home, 'postgres'),
      uploads: join(home, 'uploads'),
      settings: join(home, 'settings'),
      vault: join(home, 'vault'),
    };
  };
  const east = site('east');
  const west = { ...site('west'), identity: join(root, 'west', 'identity.txt') };
  mkdirSync(east.vault);
  const scratch = join(root, 'scratch');
  mkdirSync(scratch);
  // PostgreSQL passes through these as another user when the demo runs as root.
  for (const folder of [east.home, west.home, scratch]) chmodSync(folder, 0o755);
  return { east, west, config: join(root, 'dr.yaml'), scratch };
}

async function startDns(root: string, network: Network, env: NodeJS.ProcessEnv) {
  const script = join(clone, 'test/harness/route53/main.ts');
  const record = `${shopName} A ${zone.ttlSeconds} ${network.east.published}`;
  const args = [script, '--zone-id', zone.id, '--zone-name', zone.name, '--record', record, '--insync-ms', '500'];
  const running = startIn(root, 'dns', process.execPath, [...args, '--state-file', join(root, 'dns.json')], { env });
  const [line] = await waitForOutput(running, /^\{.*\}$/m);
  const ready: { endpoint: string; nameserver: string } = JSON.parse(line);
  return ready;
}

async function startVault(root: string, directory: string, env: NodeJS.ProcessEnv): Promise<{ endpoint: string }> {
  const script = join(clone, 'demo/vault-server.ts');
  const running = startIn(root, 'vault-west', process.execPath, [script, directory], { env });
  const [line] = await waitForOutput(running, /^\{.*\}$/m);
  return JSON.parse(line);
}

async function startShop(
  root: string,
  site: 'east' | 'west',
  folders: Folders,
  network: Network,
  databaseUrl: string,
  env: NodeJS.ProcessEnv,
): Promise<Running> {
  const { home, settings, uploads } = folders[site];
  const running = startIn(root, `shop-${site}`, process.execPath, [join(clone, 'demo/order-service.ts'), home], {
    env: {
      ...env,
      SITE: site,
      HOST: network[site].host,
      PORT: String(network[site].port),
      DATABASE: databaseUrl,
      SETTINGS: settings,
      UPLOADS: uploads,
    },
  });
  await waitForOutput(running, /is listening/);
  return running;
}

const newPassword = () => randomBytes(12).toString('hex');

/** dr wants the name of the user, as an administrator would write it. */
function userName(uid: number): string | undefined {
  return readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .map((line) => line.split(':'))
    .find((fields) => fields[2] === String(uid))?.[0];
}
