import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { exitCodes } from '../../src/commands/exit-codes.ts';
import { KmsServer, type KmsUser } from '../harness/kms/server.ts';
import { nodeBinary, startProcess } from '../harness/process.ts';
import { tempDir } from '../harness/temp.ts';

const main = join(import.meta.dirname, '../../src/main.ts');
const writer: KmsUser = { accessKeyId: 'WRITER', secretAccessKey: 'writer-secret-1', allow: ['kms:Encrypt'] };
const restorer: KmsUser = { accessKeyId: 'RESTORER', secretAccessKey: 'restorer-secret-1', allow: ['kms:Decrypt'] };

describe('vaults that KMS alone opens', () => {
  let kms: KmsServer;
  let root: string;
  let key: string;
  beforeAll(async () => {
    kms = await KmsServer.start([writer, restorer]);
    key = kms.createKey('eu-west-1', 'eu-central-1');
    root = await tempDir('kms');
    mkdirSync(join(root, 'uploads'));
    writeFileSync(join(root, 'uploads', 'a'), 'content');
    writeFileSync(
      join(root, 'dr.yaml'),
      `version: 1
vaults:
  east: { region: eu-west-1, url: "file://${root}/east" }
  west: { region: eu-central-1, url: "file://${root}/west" }
sites: { east: { region: eu-west-1, vault: east }, west: { region: eu-central-1, vault: west } }
active: east
encryption: { kms: { keyId: "${key}", replicas: [eu-central-1], endpoint: "${kms.endpoint}" } }
data: { uploads: { path: ${root}/uploads, recover: { west: { path: ${root}/west-uploads } } } }
scratch: ${root}/scratch
`,
    );
  });
  afterAll(() => kms.stop());

  async function dr(user: KmsUser, ...args: string[]) {
    const env = {
      PATH: process.env['PATH'],
      DR_CONFIG: join(root, 'dr.yaml'),
      AWS_ACCESS_KEY_ID: user.accessKeyId,
      AWS_SECRET_ACCESS_KEY: user.secretAccessKey,
    };
    const ended = await startProcess(nodeBinary, [main, ...args], { env }).ended;
    for (const { secretAccessKey } of [writer, restorer])
      expect(ended.stdout + ended.stderr).not.toContain(secretAccessKey);
    return ended;
  }

  test('are written with kms:Encrypt alone, and restored with kms:Decrypt alone, also when the region of the key is gone', async () => {
    expect(await dr(writer, 'backup')).toMatchObject({ code: 0 });
    const denied = await dr(writer, 'restore', 'uploads', '--to', join(root, 'denied'));
    expect(denied.code).toBe(exitCodes.denied.code);
    expect(denied.stderr).toContain('kms:Decrypt');
    kms.dead.add('eu-west-1');
    expect(await dr(restorer, 'restore', 'uploads', '--to', join(root, 'restored'))).toMatchObject({ code: 0 });
    expect(readFileSync(join(root, 'restored', 'a'), 'utf8')).toBe('content');
    const listed = await dr(restorer, 'keys', 'list');
    expect(listed).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(new RegExp(`^kms:${key} +yes +2 +0$`, 'm')),
    });
    kms.dead.clear();
  });

  test('doctor says what these credentials may, in each region', async () => {
    const asWriter = await dr(writer, 'doctor', '--json');
    const findings = JSON.stringify(JSON.parse(asWriter.stdout).result);
    for (const region of ['eu-west-1', 'eu-central-1'])
      expect(findings).toContain(`KMS key ${key} wraps data keys in ${region}`);
    expect(findings).toContain('these credentials may not use KMS to open data keys');
    const asRestorer = await dr(restorer, 'doctor', '--site', 'west', '--json');
    expect(JSON.stringify(JSON.parse(asRestorer.stdout).result)).toContain(
      'KMS opens the newest 2 backups in the vaults',
    );
  });
});
