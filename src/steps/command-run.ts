import { access, constants } from 'node:fs/promises';
import { z } from 'zod';
import { DrError, messageOf } from '../base/errors.ts';
import { redact } from '../base/redact.ts';
import { suggestion } from '../config/problems.ts';
import type { CommandConfig, Config } from '../config/types.ts';
import { defineStep, type StepContext } from './contract.ts';
import { fillArguments, type ProgramEnd, runProgram } from './programs.ts';

/** Lines of output that the journal keeps. */
const EVIDENCE_LINES = 5;

const params = z.object({
  command: z.string().describe('Name of the command in the configuration (`commands`). Nothing else can be started.'),
  arguments: z
    .record(z.string(), z.union([z.string(), z.number(), z.boolean()]).transform(String))
    .default({})
    .describe('Values for the `{name}` places of the command.'),
});

export const commandRun = defineStep({
  name: 'command.run',
  summary: 'Start a program that the configuration allows',
  effect: 'changes',
  modes: ['failover', 'switchover', 'failback', 'drill'],
  inDrill: 'Starts nothing unless the command says `drill: true`.',
  params,
  outputs: z.object({
    started: z.boolean().describe('False in a drill that leaves it out.'),
    output: z.string().describe('The end of what it wrote, without secrets.'),
  }),
  timeoutMs: 60 * 60_000,
  check(config, { command: name, arguments: values }) {
    if (name === undefined) return [];
    try {
      const command = commandOf(config, name);
      // Arguments with references are known to a run only.
      if (values !== undefined) fillArguments(name, command.run, values);
      return [];
    } catch (error) {
      return [messageOf(error)];
    }
  },
  async plan(context, { command: name, arguments: values = {} }) {
    if (name === undefined) return { target: 'a command', present: '', will: ['start it'], problems: [] };
    const command = commandOf(context.world.config, name);
    const argv = fillArguments(name, command.run, values);
    const shown = redact(argv.map(quoted).join(' '));
    if (isLeftOut(context, command)) {
      return { target: shown, present: '', will: ['leave it out: it does not say `drill: true`'], problems: [] };
    }
    const problems = await missing(command);
    const present = problems.length === 0 ? await presentState(context, command) : 'not known';
    return { target: shown, present, will: ['start it and wait for exit code 0'], problems };
  },
  async done(context, { command: name }) {
    const command = commandOf(context.world.config, name);
    if (command.check === undefined) return undefined;
    const { code, output } = await runProgram(command.check, command, context);
    if (code !== 0) return undefined;
    context.note(`${command.check[0]} says that it is done already`);
    return { started: true, output };
  },
  async run(context, { command: name, arguments: values }) {
    const command = commandOf(context.world.config, name);
    const argv = fillArguments(name, command.run, values);
    if (isLeftOut(context, command)) {
      context.note('left out: in a drill only commands with `drill: true` are started');
      return { started: false, output: '' };
    }
    const limit = AbortSignal.timeout(command.timeoutMs);
    const signal = AbortSignal.any([context.signal, limit]);
    const end = await runProgram(argv, command, { ...context, signal }).catch((error: unknown) => {
      if (limit.aborted && !context.signal.aborted) {
        throw new DrError('check-failed', `command ${name} did not end in its time and was killed`, {
          where: redact(argv.map(quoted).join(' ')),
          next: 'Look at what it was doing; raise commands.*.timeout if it needs longer.',
          retryable: true,
        });
      }
      throw error;
    });
    for (const line of lastLines(end.output)) context.note(line);
    if (end.code !== 0) throw failed(name, argv, end);
    return { started: true, output: end.output };
  },
});

function commandOf({ commands, source }: Config, name: string): CommandConfig {
  const command = Object.hasOwn(commands, name) ? commands[name] : undefined;
  if (command) return command;
  const known = Object.keys(commands);
  throw new DrError('config', `the configuration allows no command "${name}"${suggestion(name, known)}`, {
    where: source.path,
    next: 'Add it under "commands", or correct the name in the runbook.',
  });
}

function isLeftOut({ run }: StepContext, command: CommandConfig): boolean {
  return run.mode === 'drill' && !command.drill;
}

/** Programs that are not there or may not be started. */
async function missing(command: CommandConfig): Promise<Array<{ what: string; next: string }>> {
  const problems: Array<{ what: string; next: string }> = [];
  for (const program of new Set([command.run[0], ...(command.check ? [command.check[0]] : [])])) {
    try {
      await access(program, constants.X_OK);
    } catch (error) {
      problems.push({
        what: `${program} cannot be started: ${messageOf(error)}`,
        next: 'Install it on this machine, or correct its path in the configuration.',
      });
    }
  }
  return problems;
}

/** What its `check` says; a plan may ask it because it only looks. */
async function presentState(context: StepContext, command: CommandConfig): Promise<string> {
  if (command.check === undefined) return 'it has no check: it is repeated after an interruption';
  const { code } = await runProgram(command.check, command, context);
  return code === 0 ? 'its check says that it is done already' : 'its check says that it is not done';
}

function failed(name: string, argv: readonly string[], { code, signal, output }: ProgramEnd): DrError {
  const how = code === undefined ? `was ended by ${signal}` : `ended with exit code ${code}`;
  const last = lastLines(output).at(-1);
  return new DrError('check-failed', `command ${name} ${how}${last === undefined ? '' : `: ${last}`}`, {
    where: redact(argv.map(quoted).join(' ')),
    next: 'Mend what it complains about, then give the same command again.',
    retryable: true,
  });
}

function lastLines(output: string): string[] {
  return output
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '')
    .slice(-EVIDENCE_LINES);
}

function quoted(argument: string): string {
  return /^[A-Za-z0-9_./:=@%+,-]+$/.test(argument) ? argument : JSON.stringify(argument);
}
