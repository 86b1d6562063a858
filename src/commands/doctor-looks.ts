import { isAbort } from '../base/errors.ts';
import { bad, type Finding, fromError } from '../base/finding.ts';
import type { Log } from '../base/log.ts';
import { formatDuration } from '../base/units.ts';
import type { Area } from '../report/doctor.ts';
import type { CommandContext } from './context.ts';

/** Longer than the retries of the drivers take, so that their own reasons are heard; shorter than anybody's patience. */
const LOOK_MS = 30_000;

/** Looks at one thing and gives what was found; whatever goes wrong is a finding, only a stop of the command is thrown. */
export type Look = (name: string, work: (signal: AbortSignal) => Promise<readonly Finding[]>) => Promise<Area>;

/** Runs work with a limit of time. When it ends, the work is told by its signal and not waited for: a hung mount never answers. */
export type Within = <T>(work: (signal: AbortSignal) => Promise<T>, late: () => T) => Promise<T>;

export function openLooks(
  context: Pick<CommandContext, 'signal' | 'clock'>,
  limitMs = LOOK_MS,
): { readonly look: Look; readonly within: Within } {
  const within: Within = async (work, late) => {
    const ended = new AbortController();
    const signal = AbortSignal.any([context.signal, ended.signal]);
    const working = work(signal).catch((error: unknown) => {
      context.signal.throwIfAborted();
      // The limit's own abort: what it says is said by `late`.
      if (ended.signal.aborted) return late();
      throw error;
    });
    const waiting = new AbortController();
    const limit = context.clock
      .sleep(limitMs, AbortSignal.any([context.signal, waiting.signal]), { unref: true })
      .then(() => late());
    limit.catch(() => {});
    try {
      return await Promise.race([working, limit]);
    } finally {
      ended.abort();
      waiting.abort();
      working.catch(() => {});
    }
  };
  const look: Look = async (name, work) => {
    const late = () => [
      bad(
        `no answer within ${formatDuration(limitMs)}`,
        'See whether it hangs: a firewall that drops packets, a dead mount.',
      ),
    ];
    try {
      return { name, findings: await within(work, late) };
    } catch (error) {
      if (context.signal.aborted || isAbort(error)) throw error;
      return { name, findings: [fromError(error)] };
    }
  };
  return { look, within };
}

/** What the drivers tell the log while they try again is in the findings already: only `--log-level debug` shows it. */
export function quietLog(log: Log): Log {
  const debug = (facts: object, sentence: string) => log.debug(facts, sentence);
  return { debug, info: debug, warn: debug, error: debug, child: (facts) => quietLog(log.child(facts)) };
}
