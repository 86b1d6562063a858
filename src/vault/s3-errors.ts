import { codeOf, DrError, messageOf } from '../base/errors.ts';

/** What was being done when a request failed, for the message. */
export interface S3Call {
  readonly vault: string;
  /** `s3://bucket/prefix` and, where there is one, the key. */
  readonly where: string;
  /** Completes "cannot …": `store an object in`. */
  readonly doing: string;
  readonly bucket: string;
  readonly region: string;
  /** Host and port that were asked, or undefined for AWS itself. */
  readonly endpoint: string | undefined;
}

/** An error code of S3 and the HTTP status it came with; both undefined when no answer came. */
export interface S3Answer {
  readonly code: string | undefined;
  readonly status: number | undefined;
}

/** Reads code and status out of an error of the SDK. */
export function answerOf(error: unknown): S3Answer {
  if (!(error instanceof Error)) return { code: undefined, status: undefined };
  const metadata = '$metadata' in error ? error.$metadata : undefined;
  const status =
    typeof metadata === 'object' && metadata !== null && 'httpStatusCode' in metadata
      ? metadata.httpStatusCode
      : undefined;
  if (typeof status !== 'number') return { code: undefined, status: undefined };
  // HEAD answers have no body, hence no code: the SDK then names them after the status.
  return { code: error.name, status };
}

const denied: Readonly<Record<string, string>> = {
  InvalidAccessKeyId: 'Correct the access key id: the store does not know it.',
  SignatureDoesNotMatch: 'Correct the secret access key (and the region): the store computes another signature.',
  ExpiredToken: 'Renew the temporary credentials.',
  TokenRefreshRequired: 'Renew the temporary credentials.',
  InvalidToken: 'Renew the temporary credentials.',
  RequestTimeTooSkewed: 'Correct the clock of this machine (NTP): it differs too much from the clock of the store.',
  RequestExpired: 'Correct the clock of this machine (NTP): it differs too much from the clock of the store.',
  AccessDenied:
    'Allow s3:ListBucket on the bucket, and s3:GetObject, s3:PutObject and s3:DeleteObject on its objects, to these credentials.',
};

/** Codes after which the same request may succeed: load, defects of the store, a body that was damaged on its way. */
const passing = new Set([
  'RequestTimeout',
  'InternalError',
  'ServiceUnavailable',
  'OperationAborted',
  'ConditionalRequestConflict',
  'IncompleteBody',
  'BadDigest',
  'XAmzContentChecksumMismatch',
  'XAmzContentSHA256Mismatch',
]);

/** Of these the codes that ask for fewer requests. */
const throttling = new Set([
  'SlowDown',
  'SlowDownRead',
  'SlowDownWrite',
  'Throttling',
  'ThrottlingException',
  'TooManyRequests',
  'TooManyRequestsException',
  'RequestLimitExceeded',
  'BandwidthLimitExceeded',
]);

/** True for an answer that asks to send less, and not just now: it may take minutes until the store has grown with the load. */
export function isThrottling(error: unknown): boolean {
  const { code, status } = answerOf(error);
  // The answer to a HEAD request has no body, hence no code: 503 is how S3 says it.
  const unnamed = code === undefined || code.startsWith('Unknown');
  return status === 429 || (status === 503 && unnamed) || (code !== undefined && throttling.has(code));
}

const full = new Set([
  'QuotaExceeded',
  'XMinioStorageFull',
  'InsufficientStorage',
  'StorageQuotaExceeded',
  'EntityTooLarge',
]);

const certificate =
  /^(CERT_|ERR_TLS_|DEPTH_ZERO_SELF_SIGNED_CERT|SELF_SIGNED_CERT_IN_CHAIN|UNABLE_TO_(GET|VERIFY)_|ERR_SSL_|EPROTO$)/;

/** Turns whatever the SDK threw into an error that says what to do. Nothing of the request is kept: it holds tokens. */
export function explainS3Error(error: unknown, call: S3Call): DrError {
  if (error instanceof DrError) return error;
  const { code, status } = answerOf(error);
  // Where the store gave no message, the SDK makes one of no use.
  const text = messageOf(error)
    .slice(0, 300)
    .replace(/^(UnknownError|Unknown)$/, 'it gives no reason');
  const what = `cannot ${call.doing} vault ${call.vault}`;
  if (status === undefined) return explainNoAnswer(error, text, what, call);

  const cause = new Error(`${code} (HTTP ${status}): ${text}`);
  const facts = { where: call.where, cause };
  const answered = `${what}: the store answered ${status}${code === undefined ? '' : ` ${code}`}`;
  if (code === 'NoSuchBucket') {
    const next = `Create bucket ${call.bucket} in ${call.region} or correct the url of vault ${call.vault}.`;
    return new DrError('not-found', `bucket ${call.bucket} of vault ${call.vault} does not exist`, { ...facts, next });
  }
  if (isThrottling(error) || (code !== undefined && passing.has(code))) {
    return new DrError('unreachable', `${answered}: ${text}`, { ...facts, retryable: true, next: 'Try again later.' });
  }
  if (status === 507 || (code !== undefined && full.has(code))) {
    return new DrError('local', `${answered}: ${text}`, {
      ...facts,
      next: 'Raise the quota of the bucket or free space.',
    });
  }
  if (status === 301 || status === 307 || status === 308 || code === 'AuthorizationHeaderMalformed') {
    const next = `Correct region (now ${call.region}) or endpoint of vault ${call.vault}.`;
    return new DrError('config', `${answered}: the bucket is served by another region or endpoint`, { ...facts, next });
  }
  if (status === 501 || code === 'NotImplemented') {
    const next = 'Use a store that implements conditional writes, ranged reads and ListObjectsV2 of S3.';
    return new DrError('refused', `${answered}: it lacks something that dr needs`, { ...facts, next });
  }
  if (status === 400 && /object lock/i.test(text)) {
    const next = `Use a bucket that was made with Object Lock, or remove vaults.${call.vault}.objectLock.`;
    return new DrError('refused', `${answered}: ${text}`, { ...facts, next });
  }
  const denial = code === undefined ? undefined : denied[code];
  if (denial !== undefined || status === 401 || status === 403) {
    const skew = code === 'RequestTimeTooSkewed' || code === 'RequestExpired' ? ' (clock skew)' : '';
    const next = denial ?? denied.AccessDenied ?? '';
    return new DrError('denied', `${answered}${skew}: ${text}`, { ...facts, next });
  }
  if (status === 404) return new DrError('not-found', `${answered}`, facts);
  if (status >= 500 || status === 429 || status === 408 || status === 409) {
    return new DrError('unreachable', `${answered}: ${text}`, { ...facts, retryable: true, next: 'Try again later.' });
  }
  if (status < 300) {
    const next = `Check that the endpoint of vault ${call.vault} is an S3 service.`;
    return new DrError('corrupt', `${what}: the answer cannot be understood: ${text}`, {
      ...facts,
      next,
      retryable: true,
    });
  }
  return new DrError('denied', `${answered}: ${text}`, {
    ...facts,
    next: 'See the documentation of the store for this code.',
  });
}

function explainNoAnswer(error: unknown, text: string, what: string, call: S3Call): DrError {
  const code = codeOf(error);
  const cause = new Error(code === undefined ? text : `${code}: ${text}`);
  const name = error instanceof Error ? error.name : '';
  if (/^(CredentialsProviderError|TokenProviderError|ProviderError)$/.test(name)) {
    const next = `Give vault ${call.vault} credentials, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role.`;
    return new DrError('denied', `${what}: no credentials were found`, { where: call.where, next, cause });
  }
  const asked = call.endpoint ?? `S3 in ${call.region}`;
  if (code !== undefined && certificate.test(code)) {
    const next =
      code === 'EPROTO'
        ? `Correct the scheme (http or https) of the endpoint of vault ${call.vault}.`
        : 'Let Node trust the certificate of the store (NODE_EXTRA_CA_CERTS), or renew it.';
    const message = `${what}: no secure connection to ${asked} (${code})`;
    return new DrError('unreachable', message, { where: call.where, next, cause, retryable: false });
  }
  const reason = name === 'TimeoutError' ? 'it did not answer in time' : (code ?? text);
  const next = `Check network and endpoint (${asked}) of vault ${call.vault}.`;
  return new DrError('unreachable', `${what}: no answer from ${asked} (${reason})`, { where: call.where, next, cause });
}
