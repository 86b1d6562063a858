import { hash } from 'node:crypto';
import { DrError, messageOf } from '../base/errors.ts';

/**
 * Small plain objects of a vault (manifests, wrapped keys): JSON with its own SHA-256 as the last field, so that a flipped byte
 * anywhere in it is noticed before its content is believed.
 */
export function encodeRecord(value: object): Buffer {
  return Buffer.from(`${JSON.stringify({ ...value, sha256: digestOf(value) }, null, 1)}\n`);
}

/** Reads a record and checks its digest; `what` ("the manifest") and `where` are for the error, which is `corrupt`. */
export function decodeRecord(bytes: Uint8Array, what: string, where: string): Record<string, unknown> {
  const damaged = (reason: string, cause?: unknown) =>
    new DrError('corrupt', `${what} is damaged: ${reason}`, {
      where,
      next: 'Restore from another vault (--vault NAME), then repair this one from it.',
      cause,
    });
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8'));
  } catch (error) {
    throw damaged(messageOf(error), error);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw damaged('it is not a JSON object');
  const { sha256, ...rest } = value as Record<string, unknown>;
  if (sha256 !== digestOf(rest)) throw damaged('its content does not match its SHA-256');
  return rest;
}

function digestOf(value: object): string {
  return hash('sha256', JSON.stringify(value), 'hex');
}
