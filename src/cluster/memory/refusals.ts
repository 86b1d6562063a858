import type { ClusterObject, ObjectType } from '../contract.ts';
import { StatusError } from '../errors.ts';

/** The name, where objects of the kind may have it. */
export function checkedName(name: string, type: ObjectType): string {
  const isPath = type.group === 'rbac.authorization.k8s.io';
  if (isPath ? !/[/%]/.test(name) && name !== '' : /^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$/.test(name)) return name;
  const reason = {
    reason: 'FieldValueInvalid',
    message: `Invalid value: "${name}": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.'`,
    field: 'metadata.name',
  };
  throw new StatusError({
    code: 422,
    reason: 'Invalid',
    message: `${type.kind} "${name}" is invalid: ${reason.field}: ${reason.message}`,
    details: { causes: [reason] },
  });
}

/** Refuses a write that insists on another version than the one that is there. */
export function checkVersion(
  before: { readonly object: ClusterObject } | undefined,
  wanted: unknown,
  type: ObjectType,
  name: string,
): void {
  if (wanted !== undefined && wanted !== '' && wanted !== before?.object.metadata.resourceVersion)
    throw stale(type, name);
}

export function stale(type: ObjectType, name: string): StatusError {
  const message = `Operation cannot be fulfilled on ${resource(type)} "${name}": the object has been modified; please apply your changes to the latest version and try again`;
  return new StatusError({ code: 409, reason: 'Conflict', message });
}

export function badRequest(message: string): StatusError {
  return new StatusError({ code: 400, reason: 'BadRequest', message });
}

/** `deployments.apps`, as messages of the server have it. */
export function resource({ plural, group }: Pick<ObjectType, 'plural' | 'group'>): string {
  return group === '' ? plural : `${plural}.${group}`;
}

export function terminating(namespace: string): StatusError {
  const message = `unable to create new content in namespace ${namespace} because it is being terminated`;
  return new StatusError({ code: 403, reason: 'Forbidden', message });
}
