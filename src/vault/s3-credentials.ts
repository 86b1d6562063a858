import type { S3Client } from '@aws-sdk/client-s3';
import { defaultProvider } from '@aws-sdk/credential-provider-node';
import { answerOf } from './s3-errors.ts';

/** Answers after which other credentials may be taken. A HEAD request has no body to say why it was refused. */
const replaceable = new Set(['ExpiredToken', 'TokenRefreshRequired', 'InvalidToken', 'InvalidAccessKeyId']);

/**
 * The AWS credential chain (environment, shared files, web identity, container, instance), which reads its files anew each time that it is
 * asked: somebody, or something, renews them while `dr` runs for weeks.
 */
export const credentialChain: typeof defaultProvider = (init = {}) => defaultProvider({ ...init, ignoreCache: true });

/**
 * After a refusal: reads the credentials again, and says whether they are others than those that were refused, so that the request is worth
 * repeating. What cannot be read is no news.
 */
export async function foundNewCredentials(client: S3Client, refused: string | undefined): Promise<boolean> {
  if (refused === undefined) return false;
  // Another request may have been refused, and have read them, before.
  if ((await currentCredentials(client)) !== refused) return true;
  try {
    return nameOf(await client.config.credentials({ forceRefresh: true })) !== refused;
  } catch {
    return false;
  }
}

/** Which credentials are in use; never shown. */
export async function currentCredentials(client: S3Client): Promise<string | undefined> {
  try {
    return nameOf(await client.config.credentials());
  } catch {
    return undefined;
  }
}

/** True for an answer that says, or may say, that these credentials have had their time. */
export function mayBeOutdated(error: unknown, isHead: boolean): boolean {
  const { code, status } = answerOf(error);
  return (code !== undefined && replaceable.has(code)) || (isHead && (status === 400 || status === 403));
}

function nameOf({
  accessKeyId,
  secretAccessKey,
  sessionToken = '',
}: {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken?: string | undefined;
}): string {
  return `${accessKeyId}\n${secretAccessKey}\n${sessionToken}`;
}
