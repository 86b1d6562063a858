import { DrError, type ErrorKind, messageOf } from '../base/errors.ts';
import type { StoredError } from './events.ts';

/** What the journal keeps of anything thrown. */
export function storeError(error: unknown): StoredError {
  if (!(error instanceof DrError)) return { kind: 'internal', message: messageOf(error) };
  const causes = [];
  for (let cause: unknown = error.cause; cause instanceof Error && causes.length < 3; cause = cause.cause) {
    if (cause.message !== '' && !error.message.includes(cause.message)) causes.push(cause.message);
  }
  return {
    kind: error.kind,
    message: [error.message, ...causes].join(': '),
    ...(error.where === undefined ? {} : { where: error.where }),
    ...(error.next === undefined ? {} : { next: error.next }),
  };
}

/** The other way: an error to throw from a stored one. */
export function restoreError(stored: StoredError): DrError {
  const { kind, message, where, next } = stored;
  return new DrError(kind as ErrorKind, message, {
    ...(where === undefined ? {} : { where }),
    ...(next === undefined ? {} : { next }),
    retryable: false,
  });
}
