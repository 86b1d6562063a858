import { generateIdentity, identityToRecipient } from 'age-encryption';
import { afterAll, beforeEach, describe, expect, test } from 'vitest';
import { encodeKeyObject } from '../../src/vault/key-object.ts';
import { createDataKey, KeyRing } from '../../src/vault/keys.ts';
import type { KmsKey } from '../../src/vault/kms.ts';
import { MemoryStore } from '../../src/vault/memory-store.ts';
import { decodeRecord } from '../../src/vault/record.ts';
import { KmsServer, type KmsUser } from '../harness/kms/server.ts';

const writer: KmsUser = { accessKeyId: 'WRITER', secretAccessKey: 'writer-secret', allow: ['kms:Encrypt'] };
const restorer: KmsUser = { accessKeyId: 'RESTORER', secretAccessKey: 'restorer-secret', allow: ['kms:Decrypt'] };
const [identity, other] = [await generateIdentity(), await generateIdentity()];
const recipient = await identityToRecipient(identity);
const kms = await KmsServer.start([writer, restorer]);
afterAll(() => kms.stop());

let store: MemoryStore;
let single: string;
let multi: string;
beforeEach(() => {
  store = new MemoryStore({ name: 'east', region: 'eu-west-1' });
  single = kms.createKey('eu-west-1');
  multi = kms.createKey('eu-west-1', 'eu-central-1');
  kms.dead.clear();
  kms.requests.length = 0;
});

const keyOf = (key: string, credentials: KmsUser, regions = ['eu-west-1']): KmsKey => {
  return { key, regions, endpoint: kms.endpoint, credentials };
};

/** A data key wrapped by whoever writes, and stored. */
async function stored(recipients: readonly string[], key: KmsKey) {
  const created = await createDataKey({ recipients, kms: key }, Date.now(), 'backup');
  if (!created) throw new Error('no key');
  await store.create(created.objectKey, created.object);
  return created;
}

describe('data keys wrapped by KMS', () => {
  test('whoever may only encrypt writes them, whoever may only decrypt opens them; nobody else', async () => {
    const created = await stored([], keyOf(single, writer));
    expect(created.wrap).toBe('kms');
    const object = decodeRecord(created.object, 'key', 'x');
    expect(object).toMatchObject({ wrap: 'kms', recipients: [], kms: { key: single, regions: ['eu-west-1'] } });
    expect(object).not.toHaveProperty('wrapped');
    const opened = await new KeyRing([], { kms: keyOf(single, restorer) }).open(store, created.key.id);
    expect(Buffer.from(opened.secret).equals(created.key.secret)).toBe(true);
    await expect(new KeyRing([], { kms: keyOf(single, writer) }).open(store, created.key.id)).rejects.toMatchObject({
      kind: 'denied',
      message: expect.stringContaining('kms:Decrypt'),
      where: expect.stringContaining(created.objectKey),
      next: expect.stringContaining('kms:Decrypt'),
    });
    await expect(createDataKey({ recipients: [], kms: keyOf(single, restorer) }, 0)).rejects.toMatchObject({
      kind: 'denied',
    });
  });

  test('beside age recipients either one opens them', async () => {
    const { key, wrap } = await stored([recipient], keyOf(single, writer));
    expect(wrap).toBe('age');
    const secrets = await Promise.all([
      new KeyRing([identity]).open(store, key.id),
      new KeyRing([], { kms: keyOf(single, restorer) }).open(store, key.id),
      new KeyRing([other], { kms: keyOf(single, restorer) }).open(store, key.id),
    ]);
    for (const { secret } of secrets) expect(Buffer.from(secret).equals(key.secret)).toBe(true);
    await expect(new KeyRing([other], { kms: keyOf(single, writer) }).open(store, key.id)).rejects.toMatchObject({
      kind: 'wrong-key',
      next: expect.stringContaining(recipient),
    });
  });

  test('the wrap of one data key does not open another: the context binds it', async () => {
    const [one, two] = [await stored([], keyOf(single, writer)), await stored([], keyOf(single, writer))];
    const { sha256: _, ...stolen } = { ...decodeRecord(one.object, 'key', 'x'), id: two.key.id } as never as Record<
      string,
      never
    >;
    await store.delete([two.objectKey]);
    await store.create(two.objectKey, encodeKeyObject(stolen as never));
    await expect(new KeyRing([], { kms: keyOf(single, restorer) }).open(store, two.key.id)).rejects.toMatchObject({
      kind: 'corrupt',
    });
  });

  test('a dead region: age goes on alone, a replica takes over, and nothing waits for the dead one twice', async () => {
    kms.dead.add('eu-west-1');
    const warnings: object[] = [];
    const log = {
      debug() {},
      info() {},
      warn: (facts: object) => void warnings.push(facts),
      error() {},
      child: () => log,
    };
    const alone = await createDataKey({ recipients: [recipient], kms: keyOf(single, writer), log }, 0);
    expect(alone?.wrap).toBe('age');
    expect(decodeRecord(alone?.object ?? Buffer.alloc(0), 'key', 'x')).not.toHaveProperty('kms');
    expect(warnings).toHaveLength(1);
    await expect(createDataKey({ recipients: [], kms: keyOf(single, writer) }, 0)).rejects.toMatchObject({
      kind: 'unreachable',
      retryable: true,
    });

    const both = ['eu-west-1', 'eu-central-1'];
    const created = await stored([], keyOf(multi, writer, both));
    // The one who restores need not know of the replica: the key object does.
    await new KeyRing([], { kms: keyOf(multi, restorer) }).open(store, created.key.id);
    kms.requests.length = 0;
    const again = await stored([], keyOf(multi, writer, both));
    await new KeyRing([], { kms: keyOf(multi, restorer, both) }).open(store, again.key.id);
    expect(kms.requests).toEqual(['Encrypt eu-central-1', 'Decrypt eu-central-1']);
  });

  test.each([
    ['Disabled', 'Enable the key'],
    ['PendingDeletion', 'cancel its deletion'],
  ] as const)('a key that is %s says so', async (state, advice) => {
    const { key } = await stored([], keyOf(single, writer));
    kms.setState(single, state);
    await expect(new KeyRing([], { kms: keyOf(single, restorer) }).open(store, key.id)).rejects.toMatchObject({
      kind: 'denied',
      next: expect.stringContaining(advice),
    });
  });

  test('no secret is in any error', async () => {
    const error: unknown = await createDataKey(
      { recipients: [], kms: { ...keyOf(single, writer), key: single.replace(/.$/, 'z') } },
      0,
    ).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ kind: 'not-found' });
    expect(JSON.stringify(error, Object.getOwnPropertyNames(error))).not.toContain(writer.secretAccessKey);
  });
});
