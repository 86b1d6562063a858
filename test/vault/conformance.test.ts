import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3';
import { silentLog } from '../../src/base/log.ts';
import { FileStore } from '../../src/vault/file-store.ts';
import { MemoryStore } from '../../src/vault/memory-store.ts';
import { openVault } from '../../src/vault/open.ts';
import { objectStoreConformance } from '../conformance/object-store.ts';
import { S3Server } from '../harness/s3-server/server.ts';
import { tempDir } from '../harness/temp.ts';

objectStoreConformance('memory', async () => {
  const store = new MemoryStore({ name: 'memory' });
  return { store, other: store, cleanUp: async () => {} };
});

objectStoreConformance('directory', async () => {
  const directory = await tempDir();
  const open = () => new FileStore({ name: 'east', region: 'r1', root: join(directory, 'vault') });
  const store = open();
  await store.prepare();
  return { store, other: open(), cleanUp: async () => {} };
});

for (const storage of ['memory', 'files'] as const) {
  objectStoreConformance(`S3 through our test server, ${storage}`, async () => {
    const directory = await tempDir();
    const server = await S3Server.start(storage === 'files' ? { directory } : {});
    const open = () => openVault(s3Config(server.endpoint, 'vault', 'some/prefix', server), silentLog);
    const [store, other] = [open(), open()];
    const cleanUp = async () => {
      await Promise.all([store.close(), other.close()]);
      await server.stop();
    };
    return { store, other, cleanUp };
  });
}

const endpoint = process.env.DR_TEST_S3_ENDPOINT;
objectStoreConformance(
  'S3, a real service: needs a real S3 endpoint (DR_TEST_S3_ENDPOINT and AWS_* credentials)',
  async () => {
    const bucket = process.env.DR_TEST_S3_BUCKET ?? `dr-conformance-${randomBytes(6).toString('hex')}`;
    const config = s3Config(endpoint ?? '', bucket, `run-${randomBytes(6).toString('hex')}`, undefined);
    if (process.env.DR_TEST_S3_BUCKET === undefined) {
      const client = new S3Client({ region: config.region, endpoint: config.endpoint ?? '', forcePathStyle: true });
      await client.send(new CreateBucketCommand({ Bucket: bucket }));
      client.destroy();
    }
    const [store, other] = [openVault(config, silentLog), openVault(config, silentLog)];
    const cleanUp = async () => {
      const keys: string[] = [];
      for await (const { key } of store.list('')) keys.push(key);
      await store.delete(keys);
      await Promise.all([store.close(), other.close()]);
    };
    return { store, other, cleanUp };
  },
  { skip: endpoint === undefined },
);

function s3Config(
  url: string,
  bucket: string,
  prefix: string,
  credentials: { accessKeyId: string; secretAccessKey: string } | undefined,
) {
  return {
    name: 'east',
    region: process.env.AWS_REGION ?? 'us-east-1',
    url: `s3://${bucket}/${prefix}`,
    endpoint: url,
    forcePathStyle: true,
    credentials: credentials && { accessKeyId: credentials.accessKeyId, secretAccessKey: credentials.secretAccessKey },
  };
}
