#!/usr/bin/env -S MALLOC_ARENA_MAX=2 node --max-semi-space-size=4 --heap-growing-percent=50
// One memory arena instead of one for each thread, a small young generation, and an old one that grows by half between collections
// instead of to the threefold: together about 120 MB of the memory of a backup (measured).
import { readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { createInterface } from 'node:readline/promises';
import { systemClock } from './base/clock.ts';
import { codeOf, DrError } from './base/errors.ts';
import { exitCodeOf } from './commands/exit-codes.ts';
import { renderError, reportError } from './report/error.ts';

// The only file that touches arguments, environment, signals and the exit code.

const stop = new AbortController();
let reload: (() => void) | undefined;
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => {
    if (signal === 'SIGHUP' && reload && !stop.signal.aborted) return reload();
    // The second time somebody means it: what is half done is found and continued, or cleared, by the next run.
    if (stop.signal.aborted) process.exit(128 + constants.signals[signal]);
    process.stderr.write(
      `dr: stopping (${signal}); ${signal === 'SIGINT' ? 'Ctrl-C again' : 'a second signal'} ends it at once\n`,
    );
    stop.abort(new DrError('interrupted', `stopped by ${signal}`));
  });
}

// Whoever read our output may be gone ("dr backups | head"): the work goes on, the output is lost.
for (const stream of [process.stdout, process.stderr]) {
  stream.on('error', (error) => {
    if (codeOf(error) !== 'EPIPE') process.exitCode = exitCodeOf('local');
  });
}

const crash = (error: unknown) => {
  process.stderr.write(`${error instanceof Error ? (error.stack ?? '') : ''}\n${renderError(reportError(error))}`);
  process.exit(exitCodeOf('internal'));
};
process.on('uncaughtException', crash);
process.on('unhandledRejection', crash);

if (Number.parseInt(process.versions.node, 10) < 24) {
  process.stderr.write(
    `dr: this is Node ${process.versions.node}, and dr needs 24 or newer\n  next:  Install Node 24, or in the clone use: npm run --silent dr -- …\n`,
  );
  process.exit(exitCodeOf('local'));
}
// Only now: older versions of Node lack what it imports.
const { runCli } = await import('./commands/cli.ts');

const manifest: unknown = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'));
const version =
  typeof manifest === 'object' && manifest !== null && 'version' in manifest ? String(manifest.version) : 'unknown';

const ask = async (question: string): Promise<string> => {
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  try {
    return await terminal.question(question, { signal: stop.signal });
  } finally {
    terminal.close();
  }
};

const { askSecret } = await import('./commands/ask-secret.ts');
const secretly = (question: string) =>
  askSecret(question, process.stdin, process.stderr, {
    onInterrupt: () => process.kill(process.pid, 'SIGINT'),
    signal: stop.signal,
  });

const code = await runCli({
  args: process.argv.slice(2),
  env: process.env,
  version,
  stdout: process.stdout,
  stderr: process.stderr,
  clock: systemClock,
  startedAtMs: Math.round(performance.timeOrigin),
  signal: stop.signal,
  onReload: (listener) => {
    reload = listener;
  },
  ...(process.stdin.isTTY && process.stderr.isTTY ? { ask, askSecret: secretly } : {}),
});

// Connections that are kept alive would hold the process up; what was written is flushed first.
await Promise.all(
  [process.stdout, process.stderr].map((stream) => new Promise((resolve) => stream.write('', resolve))),
);
process.exit(process.exitCode === undefined || process.exitCode === 0 ? code : process.exitCode);
