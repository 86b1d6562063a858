/**
 * `npm run demo`: shows on real parts what dr does. Options after `--`:
 *   --keep   leave the world running afterwards, and say what to try
 *   --stop   stop and remove what --keep has left
 *   --json   one JSON document on standard output; the story goes to standard error
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { invite } from './keep.ts';
import { Narrator } from './narrator.ts';
import { existingPlaces, newPlace, type Place, removeEmptyWorlds } from './places.ts';
import { isAlive, removeWorld, stopWorld } from './processes.ts';
import { tell } from './report.ts';
import { play } from './story.ts';

const { values: flags } = parseArgs({
  options: {
    keep: { type: 'boolean', default: false },
    stop: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});

const narrator = new Narrator(flags.json ? process.stderr : process.stdout, process.env);
if (flags.help) {
  narrator.say('npm run demo [-- --keep | --stop | --json]\n');
  narrator.say('  --keep   leave the world running afterwards, and say what to try');
  narrator.say('  --stop   stop and remove what --keep has left');
  narrator.say('  --json   one JSON document on standard output; the story goes to standard error');
} else if (flags.stop) await stopKept();
else process.exitCode = await demo();
// Connections that are kept alive would hold the process up.
process.exit();

/** Plays the story once; the exit code says whether it is true. */
async function demo(): Promise<number> {
  await removeAbandoned();
  const place = newPlace();
  const reaper = startReaper(place);
  let interrupted: NodeJS.Signals | undefined;
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      if (interrupted !== undefined) return;
      interrupted = signal;
      narrator.say(`\nStopping (${signal}): everything that was started is ended, and .demo is removed.`);
      void reaper.finish().then(() => process.exit(128 + constants.signals[signal]));
    });
  }
  try {
    const { report, world } = await play({ place, narrator, env: process.env, showDr: !flags.json });
    tell(report, narrator);
    if (flags.json) process.stdout.write(`${JSON.stringify(report, undefined, 2)}\n`);
    if (flags.keep) {
      invite(world, place, narrator);
      writeFileSync(join(place.root, 'kept'), '');
    }
    return report.ok ? 0 : 1;
  } catch (error) {
    // What fails while everything is being ended is no news.
    if (interrupted === undefined)
      narrator.say(`\nThe demo failed: ${error instanceof Error ? error.message : String(error)}`);
    return 1;
  } finally {
    await reaper.finish();
  }
}

/** The process that ends the world, however this one ends. */
function startReaper(place: Place): { finish(): Promise<void> } {
  writeFileSync(join(place.root, 'owner'), String(process.pid));
  const script = join(import.meta.dirname, 'reaper.ts');
  const child = spawn(process.execPath, [script, place.entry, place.root], {
    detached: true,
    stdio: ['pipe', 'ignore', 'inherit'],
  });
  const ended = once(child, 'exit');
  return {
    finish: async () => {
      child.stdin.end();
      await ended;
    },
  };
}

/** Worlds whose demo died together with its reaper (the machine was switched off). */
async function removeAbandoned(): Promise<void> {
  for (const place of existingPlaces()) {
    const owner = join(place.root, 'owner');
    // Without the note of its owner it is being made at this moment.
    if (!existsSync(owner) || existsSync(join(place.root, 'kept'))) continue;
    if (!isAlive(Number(readFileSync(owner, 'utf8')))) await end(place);
  }
}

async function stopKept(): Promise<void> {
  const kept = existingPlaces().filter(({ root }) => existsSync(join(root, 'kept')));
  for (const place of kept) await end(place);
  await removeAbandoned();
  removeEmptyWorlds();
  narrator.say(kept.length === 0 ? 'No demo was left running.' : 'Everything is stopped and removed.');
}

async function end(place: Place): Promise<void> {
  await stopWorld(place.root);
  removeWorld(place.entry, place.root);
}
