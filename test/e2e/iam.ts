import type { S3Operation, S3Request } from '../harness/s3-server/faults.ts';

/** The IAM action that AWS asks for, by operation (https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html). */
const actions: Readonly<Record<S3Operation, string | undefined>> = {
  PutObject: 's3:PutObject',
  GetObject: 's3:GetObject',
  HeadObject: 's3:GetObject',
  DeleteObject: 's3:DeleteObject',
  DeleteObjects: 's3:DeleteObject',
  ListObjectsV2: 's3:ListBucket',
  ListObjectVersions: 's3:ListBucketVersions',
  GetBucketVersioning: 's3:GetBucketVersioning',
  GetObjectLockConfiguration: 's3:GetBucketObjectLockConfiguration',
  GetObjectRetention: 's3:GetObjectRetention',
  PutObjectRetention: 's3:PutObjectRetention',
  CreateBucket: undefined,
  HeadBucket: undefined,
  PutBucketVersioning: undefined,
  PutObjectLockConfiguration: undefined,
  Unknown: undefined,
};

/** One thing that a request needs the right for. */
export interface Access {
  readonly action: string;
  /** ARN. */
  readonly resource: string;
  /** Of a PutObject: only if the name is free. */
  readonly createOnly: boolean;
}

/** All rights that a request needs. */
export function accessesOf(request: S3Request): Access[] {
  const { operation, bucket, key, headers, versionId, deleted = [] } = request;
  const action = actions[operation];
  const createOnly = headers['if-none-match'] === '*';
  const at = (name: string) => `arn:aws:s3:::${bucket}${name === '' ? '' : `/${name}`}`;
  if (action === undefined) throw new Error(`dr should never ask for ${operation}`);
  if (operation === 'DeleteObjects') {
    return deleted.map((object) => ({
      action: object.versionId === undefined ? 's3:DeleteObject' : 's3:DeleteObjectVersion',
      resource: at(object.key),
      createOnly,
    }));
  }
  const all: Access[] = [];
  const add = (name: string) => all.push({ action: name, resource: at(key), createOnly });
  if (versionId === undefined) add(action);
  else if (operation === 'DeleteObject') add('s3:DeleteObjectVersion');
  else add('s3:GetObjectVersion');
  if (headers['x-amz-object-lock-mode'] !== undefined) add('s3:PutObjectRetention');
  if (headers['x-amz-bypass-governance-retention'] === 'true') add('s3:BypassGovernanceRetention');
  return all;
}

interface Statement {
  readonly Effect: 'Allow' | 'Deny';
  readonly Action: string | readonly string[];
  readonly Resource: string | readonly string[];
  readonly Condition?: Readonly<Record<string, Readonly<Record<string, string | readonly string[]>>>>;
}

export interface Policy {
  readonly Version: string;
  readonly Statement: readonly Statement[];
}

/** What IAM would say, as far as the policies of the documentation go: `*` and `?`, and the one condition that they use. */
export function isAllowed(policies: readonly Policy[], access: Access): boolean {
  const matching = policies
    .flatMap(({ Statement }) => Statement)
    .filter(
      ({ Action, Resource, Condition }) =>
        some(Action, access.action) && some(Resource, access.resource) && conditionHolds(Condition, access),
    );
  return matching.some(({ Effect }) => Effect === 'Allow') && !matching.some(({ Effect }) => Effect === 'Deny');
}

function conditionHolds(condition: Statement['Condition'], access: Access): boolean {
  const isNull = condition?.Null?.['s3:if-none-match'];
  return isNull === undefined || (isNull === 'true') === !access.createOnly;
}

function some(patterns: string | readonly string[], value: string): boolean {
  return [patterns].flat().some((pattern) => {
    const expression = pattern
      .replace(/[.+^${}()|[\]\\]/g, '\\$&')
      .replaceAll('*', '.*')
      .replaceAll('?', '.');
    return new RegExp(`^${expression}$`).test(value);
  });
}
