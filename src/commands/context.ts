import type { Clock } from '../base/clock.ts';
import type { ErrorKind } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { OnProgress } from '../base/progress.ts';
import type { LoadedConfig } from '../config/load.ts';

/** What every command is given: the outside world as far as it needs it. */
export interface CommandContext {
  readonly log: Log;
  readonly clock: Clock;
  /** When the process began, milliseconds since 1970: a person waits since then. */
  readonly startedAtMs: number;
  /** Aborts when the person (or the cluster) wants the command to stop; stopping politely is the command's part. */
  readonly signal: AbortSignal;
  /** Shows how far a long operation has come; calling it often is cheap. */
  readonly onProgress: OnProgress;
  /** The environment, for what is started from here (PATH, AWS_…); references of the configuration are expanded already. */
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Version of dr. */
  readonly version: string;
  /** True with --json: the result is one document, and nothing else goes to standard output. */
  readonly json: boolean;
  /** The configuration file as found by --config, $DR_CONFIG or the default. */
  readonly configPath: string;
  /** The site given by --site or $DR_SITE, not yet checked; `loadConfig` gives the site to work with. */
  readonly site: string | undefined;
  /** Reads the configuration (once) and shows its warnings on standard error. */
  loadConfig(): Promise<LoadedConfig>;
  /** The age identities of --identity or $DR_IDENTITY_FILE; `undefined` when neither is given. Registered as secrets. */
  loadIdentities(): Promise<readonly string[] | undefined>;
  /** Calls back whenever the process is asked to read its configuration again (SIGHUP); without a listener that stops it. */
  onReload(listener: () => void): void;
  /** A line for the person who waits, on standard error; nothing with --json. */
  say(line: string): void;
  /** Asks the person at the terminal and gives the line they type; undefined when nobody is there to ask. */
  readonly ask: ((question: string) => Promise<string>) | undefined;
}

/** What a command has found or done. */
export interface CommandResult {
  /** For --json: the `result` of the document. Times are milliseconds since 1970 or ISO text; LSNs may be bigint. */
  readonly data: object;
  /** For people, without a final newline; what there is to say when there is nothing to list, too. */
  readonly text: string;
  /** When the work was done but the news is bad (an objective broken, a check failed): decides the exit code. */
  readonly failure?: ErrorKind;
}

/** The work of one verb: `src/commands/<verb>.ts` exports it as `run`. */
export type Handler<Options> = (context: CommandContext, options: Options) => Promise<CommandResult>;
