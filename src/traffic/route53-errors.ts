import { codeOf, DrError, messageOf } from '../base/errors.ts';
import { printableUrl } from '../base/redact.ts';

interface Call {
  /** The API action, which is also the name of the IAM action: `GetChange`. */
  readonly action: string;
  readonly where: string;
  readonly endpoint: string | undefined;
  readonly signal: AbortSignal | undefined;
}

/** Error codes by which Route 53 asks for patience (its error reference and "Common errors"). */
const patience = new Set([
  'Throttling',
  'ThrottlingException',
  'RequestThrottled',
  'TooManyRequestsException',
  'SlowDown',
]);

const badCredentials = new Set([
  'InvalidClientTokenId',
  'UnrecognizedClientException',
  'SignatureDoesNotMatch',
  'InvalidSignatureException',
  'IncompleteSignature',
  'MissingAuthenticationToken',
  'ExpiredToken',
  'ExpiredTokenException',
]);

/** Turns whatever the SDK throws into an error that says what to do; `retryable` decides whether the call is repeated. */
export function route53Error(thrown: unknown, call: Call): DrError {
  const { action, where } = call;
  const error = withoutRequest(thrown);
  const { name } = error;
  const text = error.message;
  if (call.signal?.aborted) {
    return new DrError('interrupted', `the call ${action} to Route 53 was stopped before it was answered`, {
      where,
      cause: error,
    });
  }
  if (name === 'NoSuchHostedZone') {
    return new DrError('not-found', `there is no such hosted zone in this AWS account: ${text}`, {
      where,
      next: 'Correct route53.zone of this traffic entry (aws route53 list-hosted-zones shows the ids), or use the account that owns the zone.',
      cause: error,
    });
  }
  if (name === 'NoSuchChange') {
    return new DrError('not-found', `Route 53 knows no such change: ${text}`, {
      where,
      next: 'Run the command again: it submits the change anew if the record still needs it.',
      cause: error,
    });
  }
  if (name === 'PriorRequestNotComplete' || patience.has(name)) {
    return new DrError('unreachable', `Route 53 is busy and did not accept ${action}: ${text}`, {
      where,
      next: 'Wait a minute and run the command again; other writers in this AWS account share the limit of 5 requests a second.',
      cause: error,
      retryable: true,
    });
  }
  if (name === 'AccessDenied' || name === 'AccessDeniedException') {
    return new DrError('denied', `these AWS credentials may not call ${action}: ${text}`, {
      where,
      next: `Allow the IAM action route53:${action} for the principal that dr runs as.`,
      cause: error,
    });
  }
  if (badCredentials.has(name) || /(^|\W)clock skew|RequestTimeTooSkewed/i.test(name)) {
    return new DrError('denied', `Route 53 refuses these AWS credentials (${name}): ${text}`, {
      where,
      next: 'Renew the credentials that dr runs with, and check the clock of this machine (a signature is valid for 5 minutes).',
      cause: error,
    });
  }
  if (name === 'CredentialsProviderError' || name === 'TokenProviderError') {
    return new DrError('denied', 'no AWS credentials were found for Route 53', {
      where,
      next: 'Give dr an AWS role or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or route53.credentials of this traffic entry.',
      cause: error,
    });
  }
  return unnamed(error, statusOf(thrown), codeOf(thrown), call);
}

const invalidBatch = 'InvalidChangeBatch';

/**
 * The API reference shows an InvalidChangeBatch as a document of its own (`<InvalidChangeBatch><Messages><Message>…`), without the
 * usual code; the SDK then knows neither its name nor its text and only carries `Messages` along.
 */
function batchMessages(thrown: Error): string | undefined {
  if (!('Messages' in thrown) || typeof thrown.Messages !== 'object' || thrown.Messages === null) return undefined;
  if (!('Message' in thrown.Messages)) return undefined;
  return [thrown.Messages.Message].flat().map(String).join('; ');
}

/** The same failure without the request and sockets that the SDK attaches: they hold the signature and would fill a log. */
function withoutRequest(thrown: unknown): Error {
  const lean = new Error(messageOf(thrown));
  if (thrown instanceof Error) {
    lean.name = thrown.name;
    if (thrown.stack !== undefined) lean.stack = thrown.stack;
    const messages = batchMessages(thrown);
    if (messages !== undefined) {
      lean.name = invalidBatch;
      lean.message = messages;
    }
  }
  return lean;
}

function unnamed(
  error: Error,
  status: number | undefined,
  code: string | undefined,
  { action, where, endpoint }: Call,
): DrError {
  const text = error.message;
  if (status !== undefined && status < 500 && status !== 429 && status !== 408) {
    return new DrError('refused', `Route 53 did not accept ${action}: ${text}`, {
      where,
      next: 'Look at the message of Route 53 and correct the record, its zone or the traffic entry.',
      cause: error,
    });
  }
  const what =
    status === undefined ? `does not answer${code === undefined ? '' : ` (${code})`}` : `answers with HTTP ${status}`;
  return new DrError('unreachable', `Route 53 ${what} to ${action}: ${text}`, {
    where,
    next:
      endpoint === undefined
        ? 'Check the network from here to route53.amazonaws.com and the AWS health dashboard, then run the command again.'
        : `Check that ${printableUrl(endpoint)} can be reached from here, then run the command again.`,
    cause: error,
    retryable: true,
  });
}

/** The HTTP status of the reply that the SDK turned into an error; undefined when there was no reply. */
function statusOf(error: unknown): number | undefined {
  if (!(error instanceof Error) || !('$metadata' in error)) return undefined;
  const metadata = error.$metadata;
  if (typeof metadata !== 'object' || metadata === null || !('httpStatusCode' in metadata)) return undefined;
  return typeof metadata.httpStatusCode === 'number' ? metadata.httpStatusCode : undefined;
}

/** True when Route 53 judged a batch and changed nothing because a part of it does not fit the present records. */
export function isInvalidBatch(error: unknown): boolean {
  return error instanceof DrError && error.cause instanceof Error && error.cause.name === invalidBatch;
}
