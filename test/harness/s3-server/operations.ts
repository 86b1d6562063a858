import type { Buckets, Lock, StoredObject } from './buckets.ts';
import type { Fault, S3Operation, S3Request } from './faults.ts';
import {
  bucketLock,
  bucketVersioning,
  createBucket,
  deleteMany,
  deleteOne,
  listVersions,
  lockOf,
  methodNotAllowed,
  retention,
} from './versions.ts';
import { element, S3Error } from './xml.ts';

/** An answer before it is sent. */
export interface Answer {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Buffer | string;
}

/** The operation that a request asks for, by method and query. */
export function operationOf(method: string, key: string, query: URLSearchParams): S3Operation {
  const read = method === 'GET';
  if (key === '') {
    if (query.has('versions') && read) return 'ListObjectVersions';
    if (query.has('versioning')) return read ? 'GetBucketVersioning' : 'PutBucketVersioning';
    if (query.has('object-lock')) return read ? 'GetObjectLockConfiguration' : 'PutObjectLockConfiguration';
    if (method === 'PUT') return 'CreateBucket';
    if (method === 'HEAD') return 'HeadBucket';
    if (method === 'POST' && query.has('delete')) return 'DeleteObjects';
    if (method === 'GET' && query.get('list-type') === '2') return 'ListObjectsV2';
    return 'Unknown';
  }
  if (query.has('retention')) return read ? 'GetObjectRetention' : 'PutObjectRetention';
  const byMethod: Record<string, S3Operation> = {
    PUT: 'PutObject',
    GET: 'GetObject',
    HEAD: 'HeadObject',
    DELETE: 'DeleteObject',
  };
  return byMethod[method] ?? 'Unknown';
}

/** Carries out a request. `fault` only changes what is asked of the operation itself. */
export function perform(
  buckets: Buckets,
  request: S3Request,
  query: URLSearchParams,
  body: Buffer,
  nowMs: number,
  fault?: Fault,
): Answer {
  const { operation, bucket, key, headers } = request;
  if (operation === 'CreateBucket') return createBucket(buckets, request);
  if (operation === 'Unknown') throw new S3Error(501, 'NotImplemented', 'This server knows nothing of that kind.');
  if (!buckets.has(bucket)) throw new S3Error(404, 'NoSuchBucket', 'The specified bucket does not exist');
  switch (operation) {
    case 'HeadBucket':
      return { status: 200 };
    case 'PutObject':
      return put(buckets, request, body, lockOf(buckets, request, nowMs), fault?.kind === 'ignore-condition');
    case 'GetObject':
    case 'HeadObject': {
      const { versionId } = request;
      const info = versionId === undefined ? buckets.info(bucket, key) : buckets.version(bucket, key, versionId);
      if (!info) throw new S3Error(404, 'NoSuchKey', 'The specified key does not exist.');
      if (info.isDeleteMarker) throw methodNotAllowed();
      const range = operation === 'GetObject' ? rangeOf(headers.range, info.size) : undefined;
      const described = objectHeaders(info, headers['x-amz-checksum-mode'] === 'ENABLED');
      if (operation === 'HeadObject')
        return { status: 200, headers: { ...described, 'content-length': String(info.size) } };
      const bytes = buckets.bytes(bucket, key, info.versionId) ?? Buffer.alloc(0);
      if (!range) return { status: 200, headers: described, body: bytes };
      const contentRange = `bytes ${range.from}-${range.to}/${info.size}`;
      return {
        status: 206,
        headers: { ...described, 'content-range': contentRange },
        body: bytes.subarray(range.from, range.to + 1),
      };
    }
    case 'DeleteObject':
      return {
        status: 204,
        headers: deleteOne(
          buckets,
          request,
          key,
          request.versionId,
          fault?.kind === 'ignore-lock' ? Number.POSITIVE_INFINITY : nowMs,
        ),
      };
    case 'DeleteObjects': {
      if (
        headers['content-md5'] === undefined &&
        !Object.keys(headers).some((name) => name.startsWith('x-amz-checksum-'))
      ) {
        throw new S3Error(400, 'InvalidRequest', 'Missing required header for this request: Content-MD5');
      }
      return deleteMany(buckets, request, body, nowMs);
    }
    case 'ListObjectVersions':
      return listVersions(buckets, request, query);
    case 'GetBucketVersioning':
    case 'PutBucketVersioning':
      return bucketVersioning(buckets, request, body);
    case 'GetObjectLockConfiguration':
    case 'PutObjectLockConfiguration':
      return bucketLock(buckets, request, body);
    case 'GetObjectRetention':
    case 'PutObjectRetention':
      return retention(buckets, request, body, nowMs);
    case 'ListObjectsV2':
      return list(buckets, bucket, query, fault?.kind === 'no-token');
  }
}

function put(
  buckets: Buckets,
  { bucket, key, headers }: S3Request,
  body: Buffer,
  lock: Lock | undefined,
  unconditional: boolean,
): Answer {
  const condition = headers['if-none-match'];
  if (condition !== undefined && condition !== '*') throw new S3Error(501, 'NotImplemented', 'Only If-None-Match: *');
  if (condition !== undefined && !unconditional && buckets.info(bucket, key)) {
    throw new S3Error(412, 'PreconditionFailed', 'At least one of the pre-conditions you specified did not hold');
  }
  const wanted = headers['if-match'];
  if (typeof wanted === 'string' && !unconditional) {
    const present = buckets.info(bucket, key);
    if (!present) throw new S3Error(404, 'NoSuchKey', 'The specified key does not exist.');
    if (wanted.replaceAll('"', '') !== present.etag)
      throw new S3Error(412, 'PreconditionFailed', 'At least one of the pre-conditions you specified did not hold');
  }
  const sha256 = headers['x-amz-checksum-sha256'];
  const info = buckets.put(bucket, key, body, typeof sha256 === 'string' ? sha256 : undefined, lock);
  return { status: 200, headers: { etag: `"${info.etag}"`, ...versionHeader(info) } };
}

function objectHeaders(info: StoredObject, checksum: boolean): Record<string, string> {
  return {
    etag: `"${info.etag}"`,
    'last-modified': new Date(info.modifiedMs).toUTCString(),
    'accept-ranges': 'bytes',
    'content-type': 'application/octet-stream',
    ...versionHeader(info),
    ...(info.lock && {
      'x-amz-object-lock-mode': info.lock.mode,
      'x-amz-object-lock-retain-until-date': new Date(info.lock.untilMs).toISOString(),
    }),
    ...(checksum &&
      info.sha256 !== undefined && { 'x-amz-checksum-sha256': info.sha256, 'x-amz-checksum-type': 'FULL_OBJECT' }),
  };
}

function versionHeader({ versionId }: StoredObject): Record<string, string> {
  return versionId === 'null' ? {} : { 'x-amz-version-id': versionId };
}

/** The bytes that a Range header asks for, both ends included; it is cut at the end of the object, as S3 does. */
function rangeOf(header: S3Request['headers'][string], size: number): { from: number; to: number } | undefined {
  const match = typeof header === 'string' ? /^bytes=(\d+)-(\d*)$/.exec(header) : null;
  if (!match) return undefined;
  const from = Number(match[1]);
  const to = match[2] === '' ? size - 1 : Math.min(Number(match[2]), size - 1);
  if (from >= size) throw new S3Error(416, 'InvalidRange', 'The requested range is not satisfiable');
  return { from, to };
}

function list(buckets: Buckets, bucket: string, query: URLSearchParams, forgetToken: boolean): Answer {
  const prefix = query.get('prefix') ?? '';
  const delimiter = query.get('delimiter') ?? '';
  const limit = Math.min(Number(query.get('max-keys') ?? 1000), 1000);
  const token = query.get('continuation-token');
  const after = token === null ? (query.get('start-after') ?? '') : Buffer.from(token, 'base64url').toString('utf8');
  const contents: StoredObject[] = [];
  const folders: string[] = [];
  let last = '';
  let truncated = false;
  for (const key of buckets.keys(bucket)) {
    if (!key.startsWith(prefix) || key <= after) continue;
    const slash = delimiter === '' ? -1 : key.indexOf(delimiter, prefix.length);
    const folder = slash === -1 ? undefined : key.slice(0, slash + delimiter.length);
    // A folder that an earlier page has given: the token is that folder's name, which sorts before its keys.
    if (folder !== undefined && (folder === folders.at(-1) || (folder === after && token !== null))) continue;
    if (contents.length + folders.length === limit) {
      truncated = true;
      break;
    }
    const info = buckets.info(bucket, key);
    if (folder !== undefined) folders.push(folder);
    else if (info) contents.push(info);
    last = folder ?? key;
  }
  const body = element('ListBucketResult', {
    Name: bucket,
    Prefix: prefix,
    KeyCount: contents.length + folders.length,
    MaxKeys: limit,
    IsTruncated: truncated || forgetToken,
    NextContinuationToken: truncated && !forgetToken ? Buffer.from(last).toString('base64url') : undefined,
    Contents: contents.map((info) => ({
      Key: info.key,
      LastModified: new Date(info.modifiedMs).toISOString(),
      ETag: `"${info.etag}"`,
      Size: info.size,
      StorageClass: 'STANDARD',
    })),
    CommonPrefixes: folders.map((folder) => ({ Prefix: folder })),
  });
  return { status: 200, headers: { 'content-type': 'application/xml' }, body };
}
