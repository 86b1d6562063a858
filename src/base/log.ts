import { pino, stdSerializers } from 'pino';
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
      serializers: { error: stdSerializers.errWithCause },
    },
    scrubbed,
  );
  return log as unknown as Log;
}

/** A log that keeps nothing, for callers that want none. */
export const silentLog: Log = {
  debug: () => {},
  info: () => {},
  warn: () => {},
  error: () => {},
  child: () => silentLog,
};
