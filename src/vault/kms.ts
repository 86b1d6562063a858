import type { KMSClient } from '@aws-sdk/client-kms';
import { NodeHttpHandler } from '@smithy/node-http-handler';
import { codeOf, DrError, messageOf } from '../base/errors.ts';
import { silentLog } from '../base/log.ts';

/** A symmetric key of AWS KMS and where it can be asked. */
export interface KmsKey {
  /** ARN of the key. */
  readonly key: string;
  /** The region of the ARN first, then those of its replicas (multi-Region keys). */
  readonly regions: readonly string[];
  /** URL of a KMS other than AWS's own; it serves all regions. */
  readonly endpoint?: string | undefined;
  /** Undefined: the AWS credential chain. */
  readonly credentials?: { readonly accessKeyId: string; readonly secretAccessKey: string } | undefined;
}

/** What binds a wrap to the one data key: a policy can ask for it, and no other wrap can take its place. */
function contextOf(dataKeyId: string): Record<string, string> {
  return { 'dr-data-key': dataKeyId };
}

/** The region that answered last, by key: a dead region is not asked first for each of a hundred keys. */
const answered = new Map<string, string>();
const clients = new Map<string, Promise<KMSClient>>();

/** Wraps 32 bytes; needs `kms:Encrypt` alone. Of several regions the first that answers does it. */
export async function kmsEncrypt(key: KmsKey, secret: Uint8Array, dataKeyId: string): Promise<string> {
  const { EncryptCommand } = await import('@aws-sdk/client-kms');
  const { CiphertextBlob } = await anyRegion(key, 'wrap a data key with', key.key, async (client, keyId) =>
    client.send(new EncryptCommand({ KeyId: keyId, Plaintext: secret, EncryptionContext: contextOf(dataKeyId) })),
  );
  if (CiphertextBlob) return Buffer.from(CiphertextBlob).toString('base64');
  throw new DrError('unreachable', 'KMS answered without a wrapped key', { where: key.key });
}

/** Opens what `kmsEncrypt` made for this data key; needs `kms:Decrypt` alone. `where`: of the key object, for errors. */
export async function kmsDecrypt(
  key: KmsKey,
  wrapped: Uint8Array,
  dataKeyId: string,
  where: string,
): Promise<Uint8Array> {
  const { DecryptCommand } = await import('@aws-sdk/client-kms');
  const { Plaintext } = await anyRegion(key, 'open a data key with', where, async (client, keyId) =>
    client.send(new DecryptCommand({ KeyId: keyId, CiphertextBlob: wrapped, EncryptionContext: contextOf(dataKeyId) })),
  );
  if (Plaintext) return Plaintext;
  throw new DrError('unreachable', 'KMS answered without an opened key', { where });
}

async function anyRegion<T>(
  key: KmsKey,
  doing: string,
  where: string,
  work: (client: KMSClient, keyId: string) => Promise<T>,
): Promise<T> {
  const last = answered.get(key.key);
  const regions = [...new Set([...(last !== undefined && key.regions.includes(last) ? [last] : []), ...key.regions])];
  const failures: DrError[] = [];
  for (const region of regions) {
    const arn = key.key.replace(/^(arn:[^:]+:kms:)[^:]+/, `$1${region}`);
    try {
      const result = await work(await clientOf(key, region), arn);
      answered.set(key.key, region);
      return result;
    } catch (error) {
      failures.push(explain(error, doing, arn, where));
    }
  }
  // A clear answer says more than a region that does not answer.
  throw (
    failures.find(({ kind }) => kind !== 'unreachable') ?? failures[0] ?? new DrError('config', 'KMS has no region')
  );
}

function clientOf({ endpoint, credentials }: KmsKey, region: string): Promise<KMSClient> {
  const name = JSON.stringify([region, endpoint, credentials?.accessKeyId]);
  const known = clients.get(name);
  if (known) return known;
  const made = import('@aws-sdk/client-kms').then(
    ({ KMSClient }) =>
      new KMSClient({
        region,
        ...(endpoint === undefined ? {} : { endpoint }),
        ...(credentials === undefined ? {} : { credentials: { ...credentials } }),
        maxAttempts: 3,
        logger: silentLog,
        requestHandler: new NodeHttpHandler({
          connectionTimeout: 5_000,
          requestTimeout: 15_000,
          throwOnRequestTimeout: true,
        }),
      }),
  );
  clients.set(name, made);
  return made;
}

const advice: Readonly<Record<string, { readonly kind: DrError['kind']; readonly next: string }>> = {
  AccessDeniedException: {
    kind: 'denied',
    next: 'Allow kms:Encrypt on this key to whoever writes backups, and kms:Decrypt to whoever restores them (docs/security.md has both policies).',
  },
  DisabledException: { kind: 'denied', next: 'Enable the key in KMS.' },
  KMSInvalidStateException: {
    kind: 'denied',
    next: 'Look at the state of the key in KMS; cancel its deletion at once if it is pending: without it nothing can be opened any more.',
  },
  NotFoundException: {
    kind: 'not-found',
    next: 'Correct encryption.kms (keyId, region, replicas), or replicate the multi-Region key into that region.',
  },
  InvalidCiphertextException: {
    kind: 'corrupt',
    next: 'Restore from another vault (--vault NAME), then repair this one from it.',
  },
  IncorrectKeyException: {
    kind: 'corrupt',
    next: 'Restore from another vault (--vault NAME), then repair this one from it.',
  },
};

const passing =
  /^(KMSInternalException|DependencyTimeoutException|KeyUnavailableException|ThrottlingException|LimitExceededException|InternalFailure|ServiceUnavailable\w*)$/;

/** Nothing of the request is kept: it holds the key. */
function explain(error: unknown, doing: string, arn: string, where: string): DrError {
  const name = error instanceof Error ? error.name : '';
  const metadata = error instanceof Error && '$metadata' in error ? error.$metadata : undefined;
  const status =
    typeof metadata === 'object' && metadata !== null && 'httpStatusCode' in metadata
      ? Number(metadata.httpStatusCode)
      : undefined;
  const text = messageOf(error).slice(0, 300);
  const what = `cannot ${doing} KMS key ${arn}`;
  const known = advice[name];
  if (known) {
    const { kind, next } = known;
    return new DrError(kind, `${what}: ${name}: ${text}`, { where, next, cause: new Error(`${name}: ${text}`) });
  }
  if (/^(CredentialsProviderError|TokenProviderError|ProviderError)$/.test(name)) {
    const next = 'Give credentials for KMS: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role.';
    return new DrError('denied', `${what}: no credentials were found`, { where, next, cause: new Error(text) });
  }
  const next = 'Try again when KMS answers; an age identity of the same vault opens it without KMS.';
  if (status !== undefined && Number.isFinite(status) && status < 500 && !passing.test(name)) {
    const kind = status === 401 || status === 403 || status === 400 ? 'denied' : 'unreachable';
    return new DrError(kind, `${what}: KMS answered ${status} ${name}: ${text}`, { where, next });
  }
  const reason = name === 'TimeoutError' ? 'it did not answer in time' : (codeOf(error) ?? `${name}: ${text}`);
  return new DrError('unreachable', `${what}: no answer (${reason})`, { where, next, cause: new Error(text) });
}
