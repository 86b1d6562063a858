/**
 * Cleans up after a demo: `node demo/reaper.ts ENTRY ROOT`, with a pipe from the demo as its standard input. When the pipe closes,
 * because the demo is done, was interrupted or was killed, every process of the world is ended and its folder removed,
 * unless the demo has left a file `kept` in it.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { removeEmptyWorlds } from './places.ts';
import { removeWorld, stopWorld } from './processes.ts';

const [entry, root] = process.argv.slice(2);
if (entry === undefined || root === undefined) throw new Error('usage: reaper.ts ENTRY ROOT');

for await (const _ of process.stdin) {
  // Nothing is ever said: only the end counts.
}
if (!existsSync(join(root, 'kept'))) {
  await stopWorld(root);
  removeWorld(entry, root);
  removeEmptyWorlds();
}
