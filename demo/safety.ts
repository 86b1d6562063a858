import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { formatDuration } from '../src/base/units.ts';
import { askDr } from './dr.ts';
import { isAlive, lastLines, type Running } from './processes.ts';
import type { World } from './world.ts';

export const resources = ['orders', 'uploads', 'settings'] as const;
export type Resource = (typeof resources)[number];

/** `dr status --json`, as far as the demo reads it. */
export interface StatusAnswer {
  readonly ok: boolean;
  readonly resources: ReadonlyArray<{
    readonly name: string;
    readonly rpoNowMs?: number;
    readonly crossRegion: boolean;
    readonly newest?: { readonly id: string; readonly logicalBytes: number; readonly storedBytes: number };
  }>;
}

/** An objective that is broken is an answer too: before the first backups are taken, all are. */
const objectiveBroken = 4;

export async function askStatus(world: World): Promise<StatusAnswer> {
  return await askDr<StatusAnswer>(world.root, world.drEnv.east, ['status'], [objectiveBroken]);
}

/** Waits until `dr status` says that every resource is in both regions. */
export async function waitForFirstBackups(
  world: World,
  daemon: Running,
  detail: (text: string) => void,
): Promise<StatusAnswer> {
  for (;;) {
    mustLive(daemon);
    // Looking into the folder costs nothing; the command is asked when it may have good news.
    const there = resources.filter((name) => manifestsOf(world, name).length > 0);
    detail(`in vault east so far: ${there.join(', ') || 'nothing'}`);
    if (there.length === resources.length) {
      const status = await askStatus(world);
      if (resources.every((name) => status.resources.some((each) => each.name === name && each.crossRegion)))
        return status;
    }
    await sleep(500);
  }
}

/** Waits for a backup of `name` that is not among `known`. */
export async function waitForNewBackup(
  world: World,
  daemon: Running,
  name: Resource,
  known: readonly string[],
): Promise<string> {
  for (;;) {
    mustLive(daemon);
    const found = manifestsOf(world, name).find((id) => !known.includes(id));
    if (found !== undefined) return found;
    await sleep(200);
  }
}

/** Ids of the backups in vault east, as its folder shows them. */
export function manifestsOf(world: World, name: Resource): string[] {
  try {
    return readdirSync(join(world.folders.east.vault, 'manifests', name))
      .filter((file) => file.endsWith('.json'))
      .map((file) => file.slice(0, -'.json'.length));
  } catch {
    return [];
  }
}

/** What `dr status` says about the loss if the region died now. */
export function rpoText(status: StatusAnswer): string {
  return status.resources
    .map(({ name, rpoNowMs }) => `${name} ${rpoNowMs === undefined ? 'unknown' : formatDuration(rpoNowMs)}`)
    .join(', ');
}

function mustLive(daemon: Running): void {
  if (!isAlive(daemon.pid)) throw new Error(`the daemon of site east has ended:\n${lastLines(daemon.logFile)}`);
}
