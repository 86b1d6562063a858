import { DrError, messageOf } from '../base/errors.ts';

/** What an API server says when it refuses (`kind: Status`). */
export interface Status {
  readonly code: number;
  /** `NotFound`, `AlreadyExists`, `Conflict`, `Expired`, `Forbidden` … */
  readonly reason?: string | undefined;
  readonly message?: string | undefined;
  readonly details?:
    | {
        readonly retryAfterSeconds?: number | undefined;
        readonly causes?: readonly StatusCause[] | undefined;
      }
    | undefined;
}

export interface StatusCause {
  readonly reason?: string | undefined;
  readonly message?: string | undefined;
  /** `.spec.replicas`. */
  readonly field?: string | undefined;
}

/** What was asked, for the error: the words of RBAC. */
export interface Request {
  /** `get`, `list`, `watch`, `create`, `patch`, `delete` … */
  readonly verb: string;
  /** Empty for the core group. */
  readonly group: string;
  /** `deployments`, `deployments/scale`; empty for what is no object (`/version`). */
  readonly resource: string;
  readonly namespace?: string | undefined;
  readonly name?: string | undefined;
  /** For people: `Deployment shop/orders`. */
  readonly what: string;
}

/** A refusal as the server said it: the cause of the `DrError` that tells it to people. */
export class StatusError extends Error {
  override readonly name = 'StatusError';
  readonly status: Status;

  constructor(status: Status) {
    super(status.message ?? `HTTP ${status.code}`);
    this.status = status;
  }
}

/** A field that another manager owns. */
export interface FieldConflict {
  /** `argocd-controller`. */
  readonly manager: string;
  /** `.spec.replicas`. */
  readonly field: string;
}

/** True for a moment (a resource version, a page) that the server no longer keeps: list anew. */
export function isExpired(error: unknown): boolean {
  const status = statusOf(error);
  return status !== undefined && (status.code === 410 || status.reason === 'Expired' || status.reason === 'Gone');
}

/** Whose fields an apply would have taken; empty for any other error. */
export function fieldConflicts(error: unknown): readonly FieldConflict[] {
  return (statusOf(error)?.details?.causes ?? [])
    .filter(({ reason }) => reason === 'FieldManagerConflict')
    .map(({ message = '', field = '' }) => ({
      manager: /^conflict with "([^"]*)"/.exec(message)?.[1] ?? message,
      field,
    }));
}

/** What the server said, where it said something. */
export function statusOf(error: unknown): Status | undefined {
  if (error instanceof StatusError) return error.status;
  return error instanceof DrError && error.cause instanceof StatusError ? error.cause.status : undefined;
}

/** Seconds after which the server wants to be asked again. */
export function retryAfterOf(error: unknown): number | undefined {
  return statusOf(error)?.details?.retryAfterSeconds;
}

/** The server's refusal in the words of dr. */
export function refusal(status: Status, request: Request, target: string): DrError {
  const where = target;
  const cause = new StatusError(status);
  const { what } = request;
  const said = status.message ?? `HTTP ${status.code}`;
  switch (status.code) {
    case 401:
      return new DrError('denied', `the API server does not know who asks: ${said}`, {
        where,
        next: 'The token has expired or was revoked: sign in again, or give dr a new kubeconfig or service account token.',
        cause,
      });
    case 403:
      return forbidden(said, request, where, cause);
    case 404:
      return new DrError('not-found', `there is no ${what}: ${said}`, {
        where,
        next: 'Check its name and namespace, and that its definition is installed.',
        cause,
      });
    case 409:
      return contested(status, said, what, where, cause);
    case 410:
      return new DrError('conflict', `the API server no longer knows that moment: ${said}`, {
        where,
        next: 'List the objects anew.',
        cause,
      });
    case 429:
      return new DrError('unreachable', `the API server asks to slow down: ${said}`, {
        where,
        next: 'Wait and run the command again; if it lasts, look at its flow control (API priority and fairness).',
        cause,
      });
    case 413:
      return new DrError('refused', `${what} is too large for the API server: ${said}`, {
        where,
        next: 'An object may have about 1.5 MB: part it, or keep its content elsewhere.',
        cause,
      });
  }
  // An apply is answered with 500, and would be for ever, when its object does not fit the schema, or the one that is there does not.
  const isUntyped = /failed to create typed patch object|failed to convert new object .* to smd typed/.test(said);
  if (status.code >= 500 && !isUntyped) {
    if (said.includes('request is too large')) return refusal({ ...status, code: 413 }, request, target);
    return new DrError('unreachable', `the API server failed with ${status.code}: ${said}`, {
      where,
      next: 'Wait and run the command again; if it lasts, look at the log of the API server.',
      cause,
    });
  }
  const fields = (status.details?.causes ?? []).flatMap(({ field, message }) =>
    field ? [`${field}: ${message}`] : [],
  );
  // The server's sentence usually holds its causes already.
  const list = fields.length > 0 && !fields.every((field) => said.includes(field)) ? ` (${fields.join('; ')})` : '';
  return new DrError('refused', `the API server refuses ${what}: ${said}${list}`, {
    where,
    next: 'Correct the object; its message names the fields.',
    cause,
  });
}

/** The error for a kind that the cluster does not have. */
export function unknownKind(kind: string, apiVersion: string, target: string): DrError {
  return new DrError('not-found', `the cluster has no kind ${kind} in ${apiVersion}`, {
    where: target,
    next: 'Install its definition (CustomResourceDefinition), or use the version that the cluster has.',
  });
}

/** The rule that is missing, ready to be put into a role. */
export function missingRule({ verb, group, resource, namespace, name }: Omit<Request, 'what'>): string {
  const names = name !== undefined && !['list', 'watch', 'create'].includes(verb) ? `, resourceNames: ["${name}"]` : '';
  const role = namespace === undefined ? 'a ClusterRole' : `a Role in the namespace ${namespace}`;
  return `{ apiGroups: ["${group}"], resources: ["${resource}"], verbs: ["${verb}"]${names} } in ${role}`;
}

function forbidden(said: string, request: Request, where: string, cause: StatusError): DrError {
  const { verb, resource, what } = request;
  // RBAC says `User "…" cannot list resource "…"`; everything else that forbids is an admission check: a quota, a policy.
  if (!/cannot \S+ (resource|path)/.test(said)) {
    return new DrError('denied', `the cluster does not admit ${what}: ${said}`, {
      where,
      next: 'An admission check (quota, Pod Security, policy) says no: change the object or the check.',
      cause,
    });
  }
  const who = /User "([^"]+)"/.exec(said)?.[1];
  return new DrError('denied', `${who ?? 'dr'} may not ${verb} ${resource || what}: ${said}`, {
    where,
    next: `Add the rule ${missingRule(request)} and bind it to ${who ?? 'the account of dr'}.`,
    cause,
  });
}

function contested(status: Status, said: string, what: string, where: string, cause: StatusError): DrError {
  const conflicts = fieldConflicts(cause);
  if (conflicts.length > 0) {
    const shown = conflicts.map(({ manager, field }) => `${field} belongs to ${manager}`).join(', ');
    return new DrError('conflict', `other managers own fields of ${what}: ${shown}`, {
      where,
      next: 'Pause that manager (GitOps, an operator) or let it make the change; forcing makes the two undo each other.',
      cause,
    });
  }
  if (status.reason === 'AlreadyExists')
    return new DrError('conflict', `there is a ${what} already`, {
      where,
      next: 'Take another name, or change the object that is there.',
      cause,
    });
  return new DrError('conflict', `somebody else changed ${what} in the meantime: ${said}`, {
    where,
    next: 'Read it again and decide anew.',
    cause,
  });
}

/** A failure below HTTP (no connection, broken, TLS, a deadline) in the words of dr. */
export function noAnswer(error: unknown, what: string, target: string): DrError {
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  const isTrust = /CERT|SELF_SIGNED|UNABLE_TO|ALTNAME|^ERR_TLS|^ERR_SSL/.test(code);
  const facts = { where: target, cause: error };
  if (isTrust) {
    return new DrError('unreachable', `the certificate of the API server cannot be trusted: ${messageOf(error)}`, {
      ...facts,
      retryable: false,
      next: 'Check certificate-authority and the server name in the kubeconfig.',
    });
  }
  return new DrError('unreachable', `the API server does not answer (${what}): ${messageOf(error) || code}`, {
    ...facts,
    next: 'Check that the cluster is up and can be reached from here, and the address in the kubeconfig.',
  });
}
