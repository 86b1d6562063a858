import { once } from 'node:events';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  realpathSync,
  rmdirSync,
  statSync,
  symlinkSync,
} from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join, parse } from 'node:path';
import { serverUser } from '../test/harness/npm-postgres.ts';

export const clone = join(import.meta.dirname, '..');
const worlds = join(clone, '.demo');

/** The folder of one demo. Every demo has its own, so that two at once do not meet. */
export interface Place {
  /** In `.demo/` of the clone: the folder itself, or a link to it. */
  readonly entry: string;
  /** Where the files really are, without symbolic links on the way. */
  readonly root: string;
  /** True when the user that PostgreSQL runs as cannot enter the clone, so that the files are in the temporary folder. */
  readonly elsewhere: boolean;
}

/** Makes the folder of a new demo. */
export function newPlace(): Place {
  mkdirSync(worlds, { recursive: true });
  const entry = mkdtempSync(join(worlds, 'world-'));
  chmodSync(entry, 0o755);
  if (canEnter(entry)) return { entry, root: realpathSync(entry), elsewhere: false };
  const root = realpathSync(mkdtempSync(join(tmpdir(), 'dr-demo-')));
  chmodSync(root, 0o755);
  if (!canEnter(root)) {
    rmdirSync(root);
    rmdirSync(entry);
    throw new Error(
      `PostgreSQL does not run as root, and the user it runs as can enter neither ${clone} nor ${tmpdir()}: run the demo as an ordinary user, or in a clone that others may enter.`,
    );
  }
  rmdirSync(entry);
  symlinkSync(root, entry);
  return { entry, root, elsewhere: true };
}

/** The folders that demos have left in this clone, running or not. */
export function existingPlaces(): Place[] {
  if (!existsSync(worlds)) return [];
  return readdirSync(worlds).map((name) => {
    const entry = join(worlds, name);
    const root = existsSync(entry) ? realpathSync(entry) : entry;
    return { entry, root, elsewhere: root.startsWith(realpathSync(tmpdir())) };
  });
}

/** Removes `.demo/` when no demo is left in it. */
export function removeEmptyWorlds(): void {
  try {
    rmdirSync(worlds);
  } catch {
    // Another demo uses it, or it is gone.
  }
}

function canEnter(directory: string): boolean {
  if (serverUser === undefined) return true;
  const { uid, gid } = serverUser;
  for (let path = realpathSync(directory); path !== parse(path).root; path = dirname(path)) {
    const { mode, uid: owner, gid: group } = statSync(path);
    const bit = owner === uid ? 0o100 : group === gid ? 0o010 : 0o001;
    if ((mode & bit) === 0) return false;
  }
  return true;
}

/** How clients reach a site: the address in the DNS, and what they really connect to. */
export interface SiteAddress {
  /** The A record of the site. */
  readonly published: string;
  readonly host: string;
  readonly port: number;
}

export interface Network {
  readonly east: SiteAddress;
  readonly west: SiteAddress;
  readonly databasePorts: { readonly east: number; readonly west: number };
  readonly daemonPort: number;
  /** False where the system gives the machine only 127.0.0.1: clients then reach west's address at a port of 127.0.0.1. */
  readonly secondAddress: boolean;
}

/** Chooses free ports. The two shops have one port on two addresses of this machine, as they would on two machines. */
export async function chooseNetwork(): Promise<Network> {
  const held: Server[] = [];
  const hold = async (host: string, port = 0): Promise<number> => {
    const server = createServer().listen(port, host);
    await once(server, 'listening');
    held.push(server);
    const address = server.address();
    if (address === null || typeof address === 'string') throw new Error('no TCP address');
    return address.port;
  };
  try {
    const shop = await hold('127.0.0.1');
    const secondAddress = await hold('127.0.0.2', shop).then(
      () => true,
      () => false,
    );
    const westPort = secondAddress ? shop : await hold('127.0.0.1');
    return {
      east: { published: '127.0.0.1', host: '127.0.0.1', port: shop },
      west: { published: '127.0.0.2', host: secondAddress ? '127.0.0.2' : '127.0.0.1', port: westPort },
      databasePorts: { east: await hold('127.0.0.1'), west: await hold('127.0.0.1') },
      daemonPort: await hold('127.0.0.1'),
      secondAddress,
    };
  } finally {
    for (const server of held) server.close();
  }
}
