import { randomBytes } from 'node:crypto';
import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3';
import type { LockPolicy } from '../../src/vault/lock-policy.ts';
import { S3Store } from '../../src/vault/s3-store.ts';
import { objectLockConformance } from '../conformance/object-lock.ts';
import { hasMoto, startMoto } from '../harness/moto.ts';
import { S3Server } from '../harness/s3-server/server.ts';
import { tempDir } from '../harness/temp.ts';

interface Place {
  readonly endpoint: string;
  readonly credentials: { readonly accessKeyId: string; readonly secretAccessKey: string };
  stop(): Promise<void>;
}

/** A bucket with Object Lock, made over its own protocol. */
async function lockedBucket({ endpoint, credentials, stop }: Place) {
  const bucket = `dr-lock-${randomBytes(6).toString('hex')}`;
  const client = new S3Client({ region: 'us-east-1', endpoint, forcePathStyle: true, credentials });
  await client.send(new CreateBucketCommand({ Bucket: bucket, ObjectLockEnabledForBucket: true }));
  return {
    client,
    bucket,
    prefix: 'some/prefix',
    open: (lock: LockPolicy | undefined) =>
      new S3Store({
        name: 'east',
        region: 'us-east-1',
        bucket,
        prefix: 'some/prefix',
        endpoint,
        forcePathStyle: true,
        credentials,
        lock,
        limits: { retryBaseMs: 1, retryMaxMs: 5 },
      }),
    // Locks outlive the suite: the whole store goes, or the bucket stays.
    cleanUp: async () => {
      client.destroy();
      await stop();
    },
  };
}

for (const storage of ['memory', 'files'] as const) {
  objectLockConformance(`our test server, ${storage}`, async () => {
    const server = await S3Server.start(storage === 'files' ? { directory: await tempDir() } : {});
    const { accessKeyId, secretAccessKey, endpoint } = server;
    return lockedBucket({ endpoint, credentials: { accessKeyId, secretAccessKey }, stop: () => server.stop() });
  });
}

const real = process.env.DR_TEST_S3_ENDPOINT;
objectLockConformance(
  'a real service: needs DR_TEST_S3_ENDPOINT and AWS_* credentials',
  () =>
    lockedBucket({
      endpoint: real ?? '',
      credentials: {
        accessKeyId: process.env.AWS_ACCESS_KEY_ID ?? '',
        secretAccessKey: process.env.AWS_SECRET_ACCESS_KEY ?? '',
      },
      stop: async () => {},
    }),
  { skip: real === undefined },
);

objectLockConformance(
  'moto_server (skipped where that is not installed)',
  async () => {
    const moto = await startMoto();
    return lockedBucket({ ...moto, credentials: { accessKeyId: 'id', secretAccessKey: 'secret' } });
  },
  { skip: !hasMoto, without: ['shortening'] },
);
