import { existsSync, rmSync } from 'node:fs';
import { createConnection } from 'node:net';
import { freeSharedMemory, isAlive, killHard, type Running, serversIn } from './processes.ts';
import type { World } from './world.ts';

/** What was left of site east. */
export interface Ruin {
  /** The moment before the first kill, milliseconds since 1970. */
  readonly atMs: number;
  /** What still lives although it should not; empty = all gone. */
  readonly survivors: readonly string[];
}

/** Site east is lost: kill -9 to everything that runs there at once, then its folders, the vault of the region among them. */
export async function destroyEast(world: World, daemon: Running): Promise<Ruin> {
  const { folders, network, eastServer, eastShop } = world;
  const servers = serversIn(folders.east.home);
  const atMs = Date.now();
  await Promise.all([eastServer, eastShop, daemon].map(({ pid }) => killHard(pid)));
  // Its last breath must not recreate what is being removed.
  rmSync(folders.east.home, { recursive: true, force: true, maxRetries: 5, retryDelay: 50 });
  for (const { sharedMemory } of servers) freeSharedMemory(sharedMemory);

  const survivors = [eastServer, eastShop, daemon].filter(({ pid }) => isAlive(pid)).map(({ name }) => name);
  if (existsSync(folders.east.home)) survivors.push(folders.east.home);
  if (await answers('127.0.0.1', network.databasePorts.east)) survivors.push('the port of the database');
  if (await answers(network.east.host, network.east.port)) survivors.push('the port of the shop');
  return { atMs, survivors };
}

async function answers(host: string, port: number): Promise<boolean> {
  return await new Promise((resolve) => {
    const socket = createConnection({ host, port, timeout: 2000 });
    const end = (alive: boolean) => {
      socket.destroy();
      resolve(alive);
    };
    socket.once('connect', () => end(true));
    socket.once('timeout', () => end(false));
    socket.once('error', () => end(false));
  });
}
