// The real `dr daemon`, except that it asks the vaults five times a second, so that tests of what follows from the answer are quick.
import { systemClock } from '../../src/base/clock.ts';
import { runCli } from '../../src/commands/cli.ts';
import { run } from '../../src/commands/daemon.ts';
import { verbs } from '../../src/commands/verbs.ts';

const stop = new AbortController();
process.on('SIGTERM', () => stop.abort());

const brisk = verbs.map((verb) =>
  verb.name === 'daemon'
    ? {
        ...verb,
        bind: () => async (context: Parameters<typeof run>[0]) =>
          await run(context, {}, { askEveryMs: 200, jobPollMs: 200 }),
      }
    : verb,
);

const code = await runCli(
  {
    args: process.argv.slice(2),
    env: process.env,
    version: 'test',
    stdout: process.stdout,
    stderr: process.stderr,
    clock: systemClock,
    signal: stop.signal,
  },
  brisk,
);
process.exit(code);
