import { DrError, type ErrorKind } from '../base/errors.ts';
import type { CommandContext, CommandResult, Handler } from './context.ts';
import type { Written } from './written.ts';

export interface VerbText {
  readonly name: string;
  readonly summary: string;
  /** More for `dr VERB --help`: what it touches, what it leaves alone. */
  readonly description: string;
  readonly arguments: ReadonlyArray<readonly [syntax: string, description: string]>;
  readonly flags: ReadonlyArray<readonly [syntax: string, description: string]>;
  readonly examples: readonly string[];
  /** The failures that are particular to it; wrong arguments, configuration, defects and signals are everybody's. */
  readonly failures: readonly ErrorKind[];
}

/** A verb, ready for the command line: `bind` reads its options at once, and gives back the work to do. */
export interface Verb extends VerbText {
  /** False when this build has no handler for it. */
  readonly wired: boolean;
  bind(written: Written): (context: CommandContext) => Promise<CommandResult>;
}

/**
 * `load` imports the handler only when the verb is used: `dr status` does not wait for the code of `dr daemon`.
 * A verb whose handler is not part of this build has no `load`, and says so when it is called.
 */
export function verb<Options>(
  text: VerbText & { read(written: Written): Options; load?: () => Promise<{ run: Handler<Options> }> },
): Verb {
  return {
    ...text,
    wired: text.load !== undefined,
    bind: (written) => {
      const options = text.read(written);
      return async (context) => {
        if (text.load) return (await text.load()).run(context, options);
        throw new DrError('internal', `this build of dr does not have "dr ${text.name}"`, { next: 'Use a newer dr.' });
      };
    },
  };
}

export const vaultFlag = ['--vault <name>', 'use this vault alone'] as const;
export const atFlag = [
  '--at <when>',
  'latest, a time with its zone, "10 minutes ago", or an LSN (default: latest)',
] as const;
export const storage = ['unreachable', 'denied', 'corrupt', 'wrong-key'] as const;
