import { CreateKeyCommand, KMSClient } from '@aws-sdk/client-kms';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createDataKey, KeyRing } from '../../src/vault/keys.ts';
import { kmsDecrypt, kmsEncrypt } from '../../src/vault/kms.ts';
import { MemoryStore } from '../../src/vault/memory-store.ts';
import { hasMoto, startMoto } from '../harness/moto.ts';

const credentials = { accessKeyId: 'id', secretAccessKey: 'secret' };

describe.skipIf(!hasMoto)('AWS KMS as moto_server has it (skipped where that is not installed)', () => {
  let moto: Awaited<ReturnType<typeof startMoto>>;
  let admin: KMSClient;
  let arn: string;
  beforeAll(async () => {
    moto = await startMoto();
    admin = new KMSClient({ region: 'eu-west-1', endpoint: moto.endpoint, credentials });
    const { KeyMetadata } = await admin.send(new CreateKeyCommand({}));
    arn = KeyMetadata?.Arn ?? '';
  });
  afterAll(async () => {
    admin?.destroy();
    await moto?.stop();
  });

  test('wraps and opens data keys; another context opens nothing', async () => {
    expect(arn).toMatch(/^arn:aws:kms:eu-west-1:\d{12}:key\//);
    const key = (...regions: string[]) => ({ key: arn, regions, endpoint: moto.endpoint, credentials });
    const store = new MemoryStore({ name: 'east', region: 'eu-west-1' });
    const created = await createDataKey({ recipients: [], kms: key('eu-west-1') }, 0);
    if (!created) throw new Error('no key');
    await store.create(created.objectKey, created.object);
    const opened = await new KeyRing([], { kms: key('eu-west-1') }).open(store, created.key.id);
    expect(Buffer.from(opened.secret).equals(created.key.secret)).toBe(true);
    const wrapped = Buffer.from(await kmsEncrypt(key('eu-west-1'), Buffer.alloc(32, 7), 'one'), 'base64');
    await expect(kmsDecrypt(key('eu-west-1'), wrapped, 'two', 'x')).rejects.toMatchObject({ kind: 'corrupt' });
    expect(await kmsDecrypt(key('eu-west-1'), wrapped, 'one', 'x')).toEqual(new Uint8Array(32).fill(7));
  });
});
