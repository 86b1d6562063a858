import { randomBytes } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { generateIdentity, identityToRecipient } from 'age-encryption';
import { expect, test } from 'vitest';
import type { BackupContext } from '../../src/backup/context.ts';
import { rotateKeys } from '../../src/backup/keys/rotate.ts';
import { takeDirectoryBackup } from '../../src/backup/take-directory.ts';
import { systemClock } from '../../src/base/clock.ts';
import { silentLog } from '../../src/base/log.ts';
import type { FileStore } from '../../src/vault/file-store.ts';
import { kmsDecrypt } from '../../src/vault/kms.ts';
import { KmsServer } from '../harness/kms/server.ts';
import { tempDir } from '../harness/temp.ts';
import { backupWorld } from './fixture.ts';
import { fileVault, identityFile, restoreScript, rootOf } from './restore-script.ts';

/** Takes a backup of one small file; gives the restoring of it, each time to a new place, where success brings the file back. */
async function backedUp(store: FileStore, context: BackupContext) {
  const source = path.join(await tempDir('tree'), 'uploads');
  mkdirSync(source);
  writeFileSync(path.join(source, 'a'), 'a');
  await takeDirectoryBackup(context, { name: 'uploads', kind: 'data', path: source, exclude: [], allowEmpty: false });
  const targets = await tempDir('restored');
  let number = 0;
  return (...args: string[]) => {
    const target = path.join(targets, String(number++));
    const ended = restoreScript(rootOf(store), 'restore', 'uploads', target, ...args);
    if (ended.code === 0) expect(readFileSync(path.join(target, 'a'), 'utf8')).toBe('a');
    return ended;
  };
}

test('dr-restore.mjs: after a rotation the highest generation that can be read and opened counts', async () => {
  const store = await fileVault();
  const vault = rootOf(store);
  const world = await backupWorld([store]);
  const attempt = await backedUp(store, world.context);
  await world.pool.close();
  const [id = ''] = readdirSync(path.join(vault, 'keys'));
  const fresh = await generateIdentity();
  const policy = { recipients: [await identityToRecipient(fresh)] };
  const common = { stores: [store], policy, clock: systemClock, log: silentLog };
  const newest = path.join(vault, 'keys', id, '000002.json');
  await rotateKeys({ ...common, openers: { identities: [world.identity] }, removeOld: false });
  expect(attempt('--identity', await identityFile(fresh))).toMatchObject({ code: 0 });
  expect(attempt('--identity', await identityFile(world.identity))).toMatchObject({ code: 0 });
  const good = readFileSync(newest);
  writeFileSync(newest, '{}');
  expect(attempt('--identity', await identityFile(world.identity))).toMatchObject({ code: 0 });
  expect(attempt('--identity', await identityFile(fresh))).toMatchObject({
    code: 1,
    stderr: expect.stringContaining('000002.json'),
  });
  writeFileSync(newest, good);
  rmSync(path.join(vault, 'keys', id, '000001.json'));
  expect(attempt('--identity', await identityFile(fresh))).toMatchObject({ code: 0 });
  expect(attempt('--identity', await identityFile(world.identity))).toMatchObject({ code: 1 });
});

test('dr-restore.mjs shows how AWS KMS opens a data key, and takes what it gives', async () => {
  const user = { accessKeyId: 'K', secretAccessKey: 'secret', allow: ['kms:Encrypt', 'kms:Decrypt'] as const };
  const server = await KmsServer.start([user]);
  const store = await fileVault();
  const world = await backupWorld([store]);
  try {
    const kms = {
      key: server.createKey('eu-west-1'),
      regions: ['eu-west-1'],
      endpoint: server.endpoint,
      credentials: user,
    };
    const attempt = await backedUp(store, { ...world.context, keyPolicy: { recipients: [], kms } });
    const [id = ''] = readdirSync(path.join(rootOf(store), 'keys'));
    const explained = attempt();
    expect(explained.code).toBe(1);
    expect(explained.stderr).not.toContain('--identity');
    // The command that it shows, done by hand: what KMS is asked, and what --output text writes.
    expect(explained.stderr).toContain(`aws kms decrypt --region eu-west-1 --key-id ${kms.key}`);
    const [, name = '', value = ''] = /--encryption-context (\S+)=(\S+) /.exec(explained.stderr) ?? [];
    expect({ name, value }).toEqual({ name: 'dr-data-key', value: id });
    const record = JSON.parse(readFileSync(path.join(rootOf(store), 'keys', id, '000001.json'), 'utf8'));
    const secret = await kmsDecrypt(kms, Buffer.from(record.kms.wrapped, 'base64'), value, 'x');
    const folder = await tempDir('keys');
    writeFileSync(path.join(folder, id), `${Buffer.from(secret).toString('base64')}\n`);
    expect(attempt('--data-keys', folder)).toMatchObject({ code: 0, stderr: '' });
    expect(attempt('--data-key', path.join(folder, id))).toMatchObject({ code: 0, stderr: '' });
    writeFileSync(path.join(folder, 'other'), randomBytes(32));
    expect(attempt('--data-key', path.join(folder, 'other'))).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('its data key is not the one that was given'),
    });
    writeFileSync(path.join(folder, 'short'), 'short');
    expect(attempt('--data-key', path.join(folder, 'short')).stderr).toContain('instead of 32');
  } finally {
    await world.pool.close();
    await server.stop();
  }
});
