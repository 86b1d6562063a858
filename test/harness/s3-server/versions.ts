import type { Buckets, Lock, LockMode, StoredObject } from './buckets.ts';
import type { S3Request } from './faults.ts';
import type { Answer } from './operations.ts';
import { element, S3Error, texts } from './xml.ts';

/** What buckets with versions and Object Lock do beyond others, as AWS documents it. */

const xml = { 'content-type': 'application/xml' };

export function createBucket(buckets: Buckets, { bucket, headers }: S3Request): Answer {
  if (buckets.has(bucket)) throw new S3Error(409, 'BucketAlreadyOwnedByYou', 'You already own this bucket.');
  buckets.make(bucket, headers['x-amz-bucket-object-lock-enabled'] === 'true' ? { objectLock: true } : {});
  return { status: 200, headers: { location: `/${bucket}` } };
}

export function bucketVersioning(buckets: Buckets, { operation, bucket }: S3Request, body: Buffer): Answer {
  if (operation === 'GetBucketVersioning') {
    const Status = buckets.isVersioned(bucket) ? 'Enabled' : undefined;
    return { status: 200, headers: xml, body: element('VersioningConfiguration', { Status }) };
  }
  const versioning = texts(body.toString('utf8'), 'Status')[0] === 'Enabled';
  buckets.make(bucket, { ...buckets.settings(bucket), versioning });
  return { status: 200 };
}

export function bucketLock(buckets: Buckets, { operation, bucket }: S3Request, body: Buffer): Answer {
  const { objectLock = false } = buckets.settings(bucket);
  if (operation === 'GetObjectLockConfiguration') {
    if (objectLock === false) {
      throw new S3Error(
        404,
        'ObjectLockConfigurationNotFoundError',
        'Object Lock configuration does not exist for this bucket',
      );
    }
    const rule =
      objectLock === true ? {} : { Rule: [{ DefaultRetention: [{ Mode: objectLock.mode, Days: objectLock.days }] }] };
    const content = { ObjectLockEnabled: 'Enabled', ...rule };
    return { status: 200, headers: xml, body: element('ObjectLockConfiguration', content) };
  }
  if (objectLock === false) {
    throw new S3Error(409, 'InvalidBucketState', 'Object Lock configuration cannot be enabled on existing buckets');
  }
  const text = body.toString('utf8');
  const mode = lockMode(texts(text, 'Mode')[0]);
  buckets.make(bucket, {
    ...buckets.settings(bucket),
    objectLock: mode ? { mode, days: Number(texts(text, 'Days')[0]) } : true,
  });
  return { status: 200 };
}

/** The lock that a PutObject asks for. */
export function lockOf(buckets: Buckets, { bucket, headers }: S3Request, nowMs: number): Lock | undefined {
  const [mode, until] = [headers['x-amz-object-lock-mode'], headers['x-amz-object-lock-retain-until-date']];
  if (mode === undefined && until === undefined) return undefined;
  if ((buckets.settings(bucket).objectLock ?? false) === false) {
    throw new S3Error(400, 'InvalidRequest', 'Bucket is missing Object Lock Configuration');
  }
  const hasSum =
    headers['content-md5'] !== undefined || Object.keys(headers).some((name) => name.startsWith('x-amz-checksum-'));
  if (!hasSum) {
    const message =
      'Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock parameters';
    throw new S3Error(400, 'InvalidRequest', message);
  }
  return checkedLock(String(mode), String(until), nowMs);
}

function checkedLock(mode: string, until: string, nowMs: number): Lock {
  const known = lockMode(mode);
  const untilMs = Date.parse(until);
  if (!known || Number.isNaN(untilMs)) throw new S3Error(400, 'InvalidArgument', 'Unknown wormMode directive.');
  if (untilMs <= nowMs) throw new S3Error(400, 'InvalidArgument', 'The retain until date must be in the future!');
  return { mode: known, untilMs };
}

export function retention(buckets: Buckets, request: S3Request, body: Buffer, nowMs: number): Answer {
  const { bucket, key, headers } = request;
  const found =
    request.versionId === undefined ? buckets.newest(bucket, key) : buckets.version(bucket, key, request.versionId);
  if (!found || (found.isDeleteMarker && request.versionId === undefined)) {
    throw new S3Error(404, 'NoSuchKey', 'The specified key does not exist.');
  }
  if (found.isDeleteMarker) throw methodNotAllowed();
  if (request.operation === 'GetObjectRetention') {
    if (!found.lock) {
      throw new S3Error(404, 'NoSuchObjectLockConfiguration', 'The specified object does not have a lock');
    }
    const content = { Mode: found.lock.mode, RetainUntilDate: new Date(found.lock.untilMs).toISOString() };
    return { status: 200, headers: xml, body: element('Retention', content) };
  }
  if ((buckets.settings(bucket).objectLock ?? false) === false) {
    throw new S3Error(400, 'InvalidRequest', 'Bucket is missing Object Lock Configuration');
  }
  const text = body.toString('utf8');
  const lock = checkedLock(texts(text, 'Mode')[0] ?? '', texts(text, 'RetainUntilDate')[0] ?? '', nowMs);
  const before = found.lock && found.lock.untilMs > nowMs ? found.lock : undefined;
  const weaker =
    before && (lock.untilMs < before.untilMs || (before.mode === 'COMPLIANCE' && lock.mode !== before.mode));
  if (before && weaker && (before.mode === 'COMPLIANCE' || !mayBypass(headers))) throw protectedByLock();
  buckets.lock(bucket, key, found.versionId, lock);
  return { status: 200 };
}

/** Removes one version for good, or hides the object. Throws where a lock is in the way. */
export function deleteOne(
  buckets: Buckets,
  { bucket, headers }: S3Request,
  key: string,
  versionId: string | undefined,
  nowMs: number,
): Record<string, string> {
  if (versionId === undefined) {
    const marker = buckets.delete(bucket, key);
    return marker ? { 'x-amz-delete-marker': 'true', 'x-amz-version-id': marker.versionId } : {};
  }
  const found = buckets.version(bucket, key, versionId);
  const locked = found?.lock && found.lock.untilMs > nowMs ? found.lock : undefined;
  if (locked && (locked.mode === 'COMPLIANCE' || !mayBypass(headers))) throw protectedByLock();
  buckets.removeVersion(bucket, key, versionId);
  return { 'x-amz-version-id': versionId, ...(found?.isDeleteMarker ? { 'x-amz-delete-marker': 'true' } : {}) };
}

/** What a DeleteObjects names. */
export function objectsOf(body: Buffer): Array<{ readonly key: string; readonly versionId: string | undefined }> {
  return [...body.toString('utf8').matchAll(/<Object>(.*?)<\/Object>/gs)].map(([, inner = '']) => ({
    key: texts(inner, 'Key')[0] ?? '',
    versionId: texts(inner, 'VersionId')[0],
  }));
}

export function deleteMany(buckets: Buckets, request: S3Request, body: Buffer, nowMs: number): Answer {
  const objects = objectsOf(body);
  if (objects.length > 1000) throw new S3Error(400, 'MalformedXML', 'At most 1000 keys.');
  const failed: Array<Record<string, string>> = [];
  for (const { key, versionId } of objects) {
    try {
      deleteOne(buckets, request, key, versionId, nowMs);
    } catch (error) {
      if (!(error instanceof S3Error)) throw error;
      const { code: Code, message: Message } = error;
      failed.push({ Key: key, ...(versionId === undefined ? {} : { VersionId: versionId }), Code, Message });
    }
  }
  return { status: 200, headers: xml, body: element('DeleteResult', { Error: failed }) };
}

export function listVersions(buckets: Buckets, { bucket }: S3Request, query: URLSearchParams): Answer {
  const prefix = query.get('prefix') ?? '';
  const limit = Math.min(Number(query.get('max-keys') ?? 1000), 1000);
  const [afterKey, afterVersion] = [query.get('key-marker') ?? '', query.get('version-id-marker')];
  const page: Array<{ info: StoredObject; isLatest: boolean }> = [];
  let truncated = false;
  for (const key of buckets.keys(bucket, true)) {
    if (!key.startsWith(prefix) || key < afterKey || (key === afterKey && afterVersion === null)) continue;
    const versions = buckets.versions(bucket, key);
    const from = key === afterKey ? versions.findIndex(({ versionId }) => versionId === afterVersion) + 1 : 0;
    for (const [i, info] of versions.entries()) {
      if (i < from) continue;
      if (page.length === limit) {
        truncated = true;
        break;
      }
      page.push({ info, isLatest: i === 0 });
    }
    if (truncated) break;
  }
  const facts = ({ info, isLatest }: (typeof page)[number]) => ({
    Key: info.key,
    VersionId: info.versionId,
    IsLatest: isLatest,
    LastModified: new Date(info.modifiedMs).toISOString(),
  });
  const last = page.at(-1)?.info;
  const body = element('ListVersionsResult', {
    Name: bucket,
    Prefix: prefix,
    MaxKeys: limit,
    IsTruncated: truncated,
    NextKeyMarker: truncated ? last?.key : undefined,
    NextVersionIdMarker: truncated ? last?.versionId : undefined,
    Version: page
      .filter(({ info }) => !info.isDeleteMarker)
      .map((entry) => ({ ...facts(entry), ETag: `"${entry.info.etag}"`, Size: entry.info.size })),
    DeleteMarker: page.filter(({ info }) => info.isDeleteMarker).map(facts),
  });
  return { status: 200, headers: xml, body };
}

export function methodNotAllowed(): S3Error {
  return new S3Error(405, 'MethodNotAllowed', 'The specified method is not allowed against this resource.');
}

export function protectedByLock(): S3Error {
  return new S3Error(403, 'AccessDenied', 'Access Denied because object protected by object lock.');
}

/** Whoever may bypass governance, and says so. The server knows one user, who may unless a fault says otherwise. */
function mayBypass(headers: S3Request['headers']): boolean {
  return headers['x-amz-bypass-governance-retention'] === 'true';
}

function lockMode(text: string | undefined): LockMode | undefined {
  return text === 'GOVERNANCE' || text === 'COMPLIANCE' ? text : undefined;
}
