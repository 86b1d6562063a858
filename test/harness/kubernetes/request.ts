import type { IncomingMessage } from 'node:http';
import type { ObjectType } from '../../../src/cluster/contract.ts';
import { StatusError } from '../../../src/cluster/errors.ts';
import { parseJson } from '../../../src/cluster/json.ts';
import type { Attempt } from './rbac.ts';

/** A request about objects, in its parts. */
export interface ObjectRequest extends Attempt {
  readonly type: ObjectType;
  readonly subresource: string | undefined;
  readonly query: URLSearchParams;
}

/** The parts of `/apis/apps/v1/namespaces/shop/deployments/orders/scale`; undefined for a path that is none of objects. */
export function parseRequest(method: string, url: URL, types: readonly ObjectType[]): ObjectRequest | undefined {
  const path = url.pathname.split('/').filter(Boolean).map(decodeURIComponent);
  const rest = path[0] === 'api' ? path.slice(2) : path.slice(3);
  const apiVersion = path[0] === 'api' ? (path[1] ?? '') : `${path[1]}/${path[2]}`;
  if ((path[0] !== 'api' && path[0] !== 'apis') || rest.length === 0) return undefined;
  let namespace: string | undefined;
  // `namespaces/shop/status` is about the namespace itself; `namespaces/shop/pods` about what lies in it.
  if (rest[0] === 'namespaces' && rest.length > 2 && rest[2] !== 'status') namespace = rest.splice(0, 2)[1];
  const [plural = '', name, subresource] = rest;
  const type = types.find((each) => each.apiVersion === apiVersion && each.plural === plural);
  if (type === undefined) return undefined;
  const verb = verbOf(method, name, url.searchParams);
  const resource = subresource === undefined ? plural : `${plural}/${subresource}`;
  return { type, verb, group: type.group, resource, namespace, name, subresource, query: url.searchParams };
}

function verbOf(method: string, name: string | undefined, query: URLSearchParams): string {
  if (method === 'POST') return 'create';
  if (method === 'PATCH') return 'patch';
  if (method === 'PUT') return 'update';
  if (method === 'DELETE') return 'delete';
  if (name !== undefined) return 'get';
  return ['1', 'true'].includes(query.get('watch') ?? '') ? 'watch' : 'list';
}

/** JSON as the YAML parser of a real server takes it: some characters are refused, two count as the end of a line and become a space. */
function asYaml(text: string): string {
  if (!/[\u007f-\u0084\u0086-\u009f\ufffe\uffff]/.test(text)) return text.replace(/ *[\u0085\u2029] */g, ' ');
  const message = 'error decoding YAML: error converting YAML to JSON: yaml: control characters are not allowed';
  throw new StatusError({ code: 400, reason: 'BadRequest', message });
}

export async function bodyOf(request: IncomingMessage): Promise<Record<string, unknown>> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk);
  const text = Buffer.concat(chunks).toString('utf8');
  const isYaml = request.headers['content-type'] === 'application/apply-patch+yaml';
  const value: unknown = text === '' ? {} : parseJson(isYaml ? asYaml(text) : text);
  return typeof value === 'object' && value !== null ? { ...value } : {};
}
