import { Command, CommanderError } from 'commander';
import type { Clock } from '../base/clock.ts';
import { DrError, isAbort } from '../base/errors.ts';
import { createLog, type Log } from '../base/log.ts';
import { type LoadedConfig, loadConfig } from '../config/load.ts';
import { formatProblem } from '../config/problems.ts';
import { type ErrorReport, renderError, reportError } from '../report/error.ts';
import { renderJson } from '../report/values.ts';
import type { CommandContext, CommandResult } from './context.ts';
import { exitCodeHelp, exitCodeOf } from './exit-codes.ts';
import { readIdentities } from './identity.ts';
import { loggedProgress, writeResult } from './job-report.ts';
import { readableLogLine } from './log-lines.ts';
import { Terminal, type TerminalOutput } from './terminal.ts';
import type { Verb } from './verb.ts';
import { verbs as allVerbs } from './verbs.ts';

/** The outside of the process, as `main.ts` finds it and tests make it. */
export interface Outside {
  /** Arguments after the name of the program. */
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly version: string;
  readonly stdout: { write(text: string): unknown };
  readonly stderr: TerminalOutput;
  readonly clock: Clock;
  /** When the process began; default: now. */
  readonly startedAtMs?: number;
  readonly signal: AbortSignal;
  /** Calls back whenever the process is asked to read its configuration again. */
  readonly onReload?: ((listener: () => void) => void) | undefined;
  /** Asks the person at the terminal; missing when input or error output is none. */
  readonly ask?: ((question: string) => Promise<string>) | undefined;
  /** The same for a secret: nothing that is typed is shown. */
  readonly askSecret?: ((question: string) => Promise<string>) | undefined;
}

/** What stands before or after the verb and is the same for all. */
interface Globals {
  readonly config?: string;
  readonly json?: boolean;
  readonly identity?: string;
  readonly passphraseFile?: string;
  readonly site?: string;
  readonly logLevel?: string;
  readonly progress: boolean;
}

interface Chosen {
  readonly verb: Verb;
  readonly globals: Globals;
  readonly work: (context: CommandContext) => Promise<CommandResult>;
}

const logLevels = ['trace', 'debug', 'info', 'warn', 'error', 'silent'];

/**
 * One call of `dr`: parses the arguments, does the work of the verb, writes its result to standard output (or the error as
 * one block to standard error, and with --json as a document to standard output). Never throws; gives the exit code.
 */
export async function runCli(outside: Outside, verbs: readonly Verb[] = allVerbs): Promise<number> {
  // Known before the arguments are parsed, because a mistake in them is reported in this form too.
  const json = outside.args.includes('--json');
  let chosen: Chosen | undefined;
  try {
    chosen = choose(outside, verbs);
    if (chosen === undefined) return 0;
  } catch (error) {
    return fail(outside, undefined, json, reportError(error));
  }

  const { globals, verb, work } = chosen;
  const progress = !json && globals.progress && verb.name !== 'daemon';
  const terminal = new Terminal({ output: outside.stderr, env: outside.env, now: outside.clock.now, progress });
  const log = openLog(outside, globals, verb.name, terminal);
  try {
    const result = await work(createContext(outside, globals, json, terminal, log));
    terminal.close();
    const ok = result.failure === undefined;
    const document = { ok, command: verb.name, result: result.data };
    outside.stdout.write(json ? renderJson(document) : `${result.text}\n`);
    writeResult(outside.env['DR_RESULT_FILE'], document, log);
    return exitCodeOf(result.failure);
  } catch (thrown) {
    terminal.close();
    // An operation that was aborted may say so in its own words; to the shell it is an interruption.
    const interrupted = outside.signal.aborted && isAbort(thrown);
    const report = reportError(
      interrupted ? new DrError('interrupted', 'stopped before it was finished', { cause: thrown }) : thrown,
    );
    if (report.kind === 'internal') log.error({ error: thrown }, 'unexpected error');
    writeResult(outside.env['DR_RESULT_FILE'], { ok: false, command: verb.name, error: report }, log);
    return fail(outside, verb.name, json, report);
  }
}

function fail(outside: Outside, command: string | undefined, json: boolean, report: ErrorReport): number {
  if (json)
    outside.stdout.write(renderJson({ ok: false, ...(command === undefined ? {} : { command }), error: report }));
  else outside.stderr.write(renderError(report));
  return exitCodeOf(report.kind);
}

/** The verb with its options; undefined when help or the version was asked for, and shown. */
function choose(outside: Outside, verbs: readonly Verb[]): Chosen | undefined {
  let chosen: Chosen | undefined;
  let complaint = '';
  const program = new Command('dr')
    .description(
      'Disaster recovery: backs up databases, data and configuration to vaults in two or more regions, proves that they restore, and fails over by runbook.',
    )
    .version(outside.version, '--version', 'show the version')
    .option('--config <file>', 'configuration file (default: $DR_CONFIG, then config/dr.yaml)')
    .option('--json', 'one JSON document on standard output; logs stay on standard error')
    .option('--identity <file>', 'age identity that opens the vaults (default: $DR_IDENTITY_FILE)')
    .option(
      '--passphrase-file <file>',
      'holds the passphrase of a protected identity (default: $DR_PASSPHRASE_FILE, $DR_PASSPHRASE, else it is asked for)',
    )
    .option('--site <name>', 'the site this dr runs at (default: $DR_SITE, then the active site of the file)')
    .option('--log-level <level>', `${logLevels.join(', ')} (default: $DR_LOG_LEVEL, then warn; daemon: info)`)
    .option('--no-progress', 'do not show how far long operations have come')
    .helpOption('-h, --help', 'show help')
    .helpCommand(false)
    .showHelpAfterError(false)
    .configureHelp({ showGlobalOptions: true, styleTitle: (text) => text })
    .addHelpText(
      'after',
      `\nExamples:\n  $ dr validate\n  $ dr backup orders\n  $ dr failover --plan\n\n${exitCodeHelp()}\n\n"dr VERB --help" shows the options and examples of a verb.`,
    );
  const configure = (command: Command) =>
    command.exitOverride().configureOutput({
      writeOut: (text) => outside.stdout.write(text),
      writeErr: (text) => {
        complaint += text;
      },
    });
  configure(program);
  for (const verb of verbs) {
    const command = configure(
      program.command(verb.name).summary(verb.summary).description(`${verb.summary}\n\n${verb.description}`),
    );
    for (const [syntax, description] of verb.arguments) command.argument(syntax, description);
    for (const [syntax, description] of verb.flags) {
      if (description.endsWith('(required)')) command.requiredOption(syntax, description);
      else command.option(syntax, description);
    }
    command.addHelpText(
      'after',
      `\nExamples:\n${verb.examples.map((line) => `  $ ${line}`).join('\n')}\n\n${exitCodeHelp(['internal', 'usage', 'config', ...verb.failures, 'interrupted'])}`,
    );
    command.action((...parsed: unknown[]) => {
      const given = parsed.slice(0, verb.arguments.length) as (string | string[] | undefined)[];
      const globals = checkGlobals(program.opts());
      chosen = {
        verb,
        globals,
        work: verb.bind({ arguments: given, flags: command.opts(), nowMs: outside.clock.now() }),
      };
    });
  }
  try {
    program.parse([...outside.args], { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode === 0) return undefined;
    throw usageError(error, complaint, outside.args, verbs);
  }
  return chosen;
}

function checkGlobals(options: object): Globals {
  const globals = options as Globals;
  if (globals.logLevel !== undefined && !logLevels.includes(globals.logLevel)) {
    throw new DrError('usage', `--log-level ${globals.logLevel} is not known`, {
      next: `Give one of ${logLevels.join(', ')}.`,
    });
  }
  return globals;
}

/** What commander complains about, in one sentence, and where the right form is shown. */
function usageError(
  error: CommanderError,
  complaint: string,
  args: readonly string[],
  verbs: readonly Verb[],
): DrError {
  const verb = verbs.find(({ name }) => args.includes(name))?.name;
  const help = `Run "dr ${verb === undefined ? '' : `${verb} `}--help" to see what it takes.`;
  if (error.code === 'commander.help') {
    return new DrError('usage', `no verb given: one of ${verbs.map(({ name }) => name).join(', ')}`, { next: help });
  }
  const text = (complaint || error.message)
    .trim()
    .replace(/^error: /, '')
    .replace(/\n\(Did you mean (.+)\?\)$/s, '; did you mean $1?');
  return new DrError('usage', text, { next: help });
}

function openLog(outside: Outside, globals: Globals, verb: string, terminal: Terminal): Log {
  const asked = globals.logLevel ?? outside.env['DR_LOG_LEVEL'];
  const level = asked !== undefined && logLevels.includes(asked) ? asked : verb === 'daemon' ? 'info' : 'warn';
  const readable = outside.stderr.isTTY === true && !globals.json;
  return createLog(level, { write: (line) => terminal.line(readable ? readableLogLine(line) : line.trimEnd()) });
}

function createContext(
  outside: Outside,
  globals: Globals,
  json: boolean,
  terminal: Terminal,
  log: Log,
): CommandContext {
  const configPath = globals.config ?? (outside.env['DR_CONFIG'] || 'config/dr.yaml');
  const site = globals.site ?? (outside.env['DR_SITE'] || undefined);
  const say = (line: string) => {
    if (!json) terminal.line(line);
  };
  let loaded: Promise<LoadedConfig> | undefined;
  let identities: Promise<readonly string[] | undefined> | undefined;
  return {
    log,
    clock: outside.clock,
    startedAtMs: outside.startedAtMs ?? outside.clock.now(),
    signal: outside.signal,
    onProgress: outside.env['DR_PROGRESS'] === 'log' ? loggedProgress(log, outside.clock.now) : terminal.onProgress,
    env: outside.env,
    version: outside.version,
    json,
    configPath,
    site,
    loadConfig: () => {
      loaded ??= loadConfig(configPath, outside.env, { site }).then((config) => {
        for (const warning of config.warnings) say(`warning: ${formatProblem(warning)}`);
        return config;
      });
      return loaded;
    },
    loadIdentities: () => {
      const file = globals.identity ?? outside.env['DR_IDENTITY_FILE'];
      const passphrase = {
        file: globals.passphraseFile ?? (outside.env['DR_PASSPHRASE_FILE'] || undefined),
        value: outside.env['DR_PASSPHRASE'] || undefined,
        ask: outside.askSecret,
      };
      identities ??= file ? readIdentities(file, passphrase, log) : Promise.resolve(undefined);
      return identities;
    },
    onReload: (listener) => outside.onReload?.(listener),
    say,
    ask: json ? undefined : outside.ask,
  };
}
