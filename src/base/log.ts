import { pino, stdSerializers } from 'pino';
import { DrError, messageOf } from './errors.ts';
import { redact } from './redact.ts';

/** Structured log: facts first, then a sentence. Nothing below `commands/` writes anywhere else. */
export interface Log {
  debug(facts: object, sentence: string): void;
  info(facts: object, sentence: string): void;
  warn(facts: object, sentence: string): void;
  error(facts: object, sentence: string): void;
  child(facts: object): Log;
}

/** The real log: JSON lines on standard error, so that standard output holds only results. Every string is redacted. */
export function createLog(level: string, destination: { write(line: string): void } = process.stderr): Log {
  const scrubbed = { write: (line: string) => destination.write(redact(line)) };
  const log = pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      serializers: { error: errorFacts },
    },
    scrubbed,
  );
  return log as unknown as Log;
}

/** An expected error is told by its facts; only an unexpected one needs its stack. */
function errorFacts(error: unknown): unknown {
  if (!(error instanceof DrError)) return error instanceof Error ? stdSerializers.errWithCause(error) : error;
  const { kind, message, where, next, cause } = error;
  return { kind, message, where, next, ...(cause === undefined ? {} : { why: messageOf(cause) }) };
}

/** A log that keeps nothing, for callers that want none. */
export const silentLog: Log = {
  debug: () => {},
  info: () => {},
  warn: () => {},
  error: () => {},
  child: () => silentLog,
};
