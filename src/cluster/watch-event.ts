import { DrError } from '../base/errors.ts';
import type { ClusterObject, WatchEvent } from './contract.ts';
import { type Request, refusal } from './errors.ts';
import { isJson, parseJson } from './json.ts';

const names = { ADDED: 'added', MODIFIED: 'modified', DELETED: 'deleted' } as const;

/** One line of a watch; undefined for a kind of event that is not known. Throws what an ERROR event says. */
export function readEvent(line: string, request: Request, target: string): WatchEvent | undefined {
  const event = parsed(line, request, target);
  const object = isJson(event) && isJson(event['object']) ? event['object'] : {};
  const type = isJson(event) ? event['type'] : undefined;
  if (type === 'ERROR') {
    const code = Number(object['code']);
    throw refusal({ ...object, code: Number.isFinite(code) && code >= 400 ? code : 500 }, request, target);
  }
  if (type === 'BOOKMARK') {
    const { resourceVersion } = isJson(object['metadata']) ? object['metadata'] : {};
    return { type: 'bookmark', resourceVersion: String(resourceVersion) };
  }
  if (type !== 'ADDED' && type !== 'MODIFIED' && type !== 'DELETED') return undefined;
  return { type: names[type], object: object as ClusterObject };
}

function parsed(line: string, request: Request, target: string): unknown {
  try {
    return parseJson(line);
  } catch (cause) {
    // A connection that breaks in the middle of a line leaves half of it.
    throw new DrError('unreachable', `a line of the ${request.what} is no JSON`, {
      where: target,
      next: 'Look at what stands between dr and the API server.',
      cause,
    });
  }
}
