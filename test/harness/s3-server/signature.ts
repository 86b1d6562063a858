import { createHash, createHmac } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { S3Error } from './xml.ts';

/**
 * Checks a request's AWS Signature Version 4 against the one key pair of the server. `body`: its SHA-256 (hexadecimal), for services that
 * do not send it in a header. Returns the region that it was signed for.
 */
export function checkSignature(
  request: IncomingMessage,
  accessKeyId: string,
  secretAccessKey: string,
  nowMs: number,
  { service = 's3', body }: { readonly service?: string; readonly body?: string } = {},
): string {
  const header = request.headers.authorization ?? '';
  const match =
    /^AWS4-HMAC-SHA256 Credential=([^/]+)\/(\d{8}\/([^/]+)\/([a-z0-9]+)\/aws4_request), ?SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})$/.exec(
      header,
    );
  if (!match || match[4] !== service) throw new S3Error(403, 'AccessDenied', 'Access Denied.');
  const [, id, scope = '', region = '', , signedHeaders = '', signature] = match;
  if (id !== accessKeyId) {
    throw new S3Error(403, 'InvalidAccessKeyId', 'The AWS access key Id you provided does not exist in our records.');
  }
  const date = String(request.headers['x-amz-date']);
  const sentMs = Date.parse(date.replace(/^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/, '$1-$2-$3T$4:$5:$6Z'));
  if (!(Math.abs(sentMs - nowMs) <= 15 * 60_000)) {
    const message = 'The difference between the request time and the current time is too large.';
    throw new S3Error(403, 'RequestTimeTooSkewed', message);
  }
  const [path = '', query = ''] = (request.url ?? '').split('?');
  const canonicalQuery = query
    .split('&')
    .filter((pair) => pair !== '')
    .map((pair) => (pair.includes('=') ? pair : `${pair}=`))
    .sort()
    .join('&');
  const headers = signedHeaders
    .split(';')
    .map(
      (name) =>
        `${name}:${String(request.headers[name] ?? '')
          .trim()
          .replace(/ +/g, ' ')}\n`,
    )
    .join('');
  const payload = body ?? String(request.headers['x-amz-content-sha256']);
  const canonical = [request.method, path, canonicalQuery, headers, signedHeaders, payload].join('\n');
  const toSign = ['AWS4-HMAC-SHA256', date, scope, createHash('sha256').update(canonical).digest('hex')].join('\n');
  let key = Buffer.from(`AWS4${secretAccessKey}`);
  for (const part of scope.split('/')) key = createHmac('sha256', key).update(part).digest();
  if (createHmac('sha256', key).update(toSign).digest('hex') === signature) return region;
  throw new S3Error(
    403,
    'SignatureDoesNotMatch',
    'The request signature we calculated does not match the one you provided.',
  );
}
