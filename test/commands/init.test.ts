import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { generateIdentity, identityToRecipient } from 'age-encryption';
import { beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest';
import { systemClock } from '../../src/base/clock.ts';
import { runCli } from '../../src/commands/cli.ts';
import { exitCodes } from '../../src/commands/exit-codes.ts';
import { S3Server } from '../harness/s3-server/server.ts';
import { tempDir } from '../harness/temp.ts';

let root: string;
let config: string;
let identity: string;
let text: string;

beforeEach(async () => {
  root = await tempDir('init');
  config = join(root, 'etc', 'dr.yaml');
  for (const directory of ['etc/books', 'uploads']) mkdirSync(join(root, directory), { recursive: true });
  writeFileSync(join(root, 'uploads', 'a'), 'the content');
  writeFileSync(join(root, 'etc/books/failover.yaml'), 'name: failover\n');
  writeFileSync(join(root, 'etc/books/notes.txt'), 'not a runbook\n');
  const secret = await generateIdentity();
  identity = join(root, 'identity.txt');
  writeFileSync(identity, `${secret}\n`, { mode: 0o600 });
  text = `version: 1 # \${NOT_A_REFERENCE} in a comment
objectives: { rto: 1h, rpo: 15m }
vaults:
  east: { region: eu-west-1, url: "file://\${VAULTS}/vault-east" }
  west: { region: eu-central-1, url: "file://\${VAULTS}/vault-west" }
sites:
  east: { region: eu-west-1, vault: east }
  west: { region: eu-central-1, vault: west }
active: east
encryption: { recipients: ["${await identityToRecipient(secret)}"] }
data:
  uploads: { path: "\${UPLOADS:-${root}/uploads}", schedule: daily, retention: 90 days, recover: { west: { path: ${root}/w } } }
runbooks: books
`;
  writeFileSync(config, text);
});

async function dr(args: readonly string[], env: Record<string, string> = { VAULTS: root }) {
  let stdout = '';
  let stderr = '';
  const code = await runCli({
    args,
    env,
    version: '0.0.0',
    stdout: { write: (out: string) => (stdout += out) },
    stderr: { write: (out: string) => (stderr += out) },
    clock: systemClock,
    signal: new AbortController().signal,
  });
  return { code, stdout, stderr };
}

const backup = async () => await dr(['backup', '--config', config]);
const stored = (vault: string) => readdirSync(join(root, vault, 'configuration'));
const init = async (to: string, ...more: string[]) =>
  await dr(['init', '--from', join(root, 'vault-west'), '--to', to, '--identity', identity, ...more], {});

describe('dr init', () => {
  test('rebuilds configuration and runbooks from one vault, and a restore works with them', async () => {
    expect((await backup()).code).toBe(0);
    for (const lost of ['etc', 'uploads', 'vault-east']) rmSync(join(root, lost), { recursive: true });
    const to = join(root, 'new/etc');
    const made = await init(to);
    expect(made).toMatchObject({ code: 0, stderr: '' });
    expect(readFileSync(join(to, 'dr.yaml'), 'utf8')).toBe(text);
    expect(readdirSync(to, { recursive: true }).sort()).toEqual(['books', 'books/failover.yaml', 'dr.yaml']);
    expect(made.stdout).toMatch(/\n {2}VAULTS: NOT SET\n {2}UPLOADS: has a default\n\n/);
    expect(made.stdout).not.toContain('NOT_A_REFERENCE');
    const restore = ['restore', 'uploads', '--to', join(root, 'back'), '--identity', identity];
    expect((await dr([...restore, '--config', join(to, 'dr.yaml')])).code).toBe(0);
    expect(readFileSync(join(root, 'back/a'), 'utf8')).toBe('the content');
  });

  test('makes the folder of the runbooks also where none of one’s own was in it, and the configuration is valid', async () => {
    rmSync(join(root, 'etc/books/failover.yaml'));
    expect((await backup()).code).toBe(0);
    const to = join(root, 'new/etc');
    expect((await init(to)).code).toBe(0);
    expect(readdirSync(to, { recursive: true }).sort()).toEqual(['books', 'dr.yaml']);
    const valid = await dr(['validate', '--config', join(to, 'dr.yaml')], { VAULTS: root });
    expect(valid).toMatchObject({ code: 0, stdout: expect.stringContaining(`none in ${join(to, 'books')}`) });
  });

  test('overwrites nothing; another identity or none opens nothing; a place that is no vault is named', async () => {
    expect((await backup()).code).toBe(0);
    const to = join(root, 'new');
    mkdirSync(join(to, 'books'), { recursive: true });
    writeFileSync(join(to, 'books/failover.yaml'), 'mine');
    const refused = await init(to);
    expect(refused.code).toBe(exitCodes.refused.code);
    expect(refused.stderr).toContain(join(to, 'books/failover.yaml'));
    expect(existsSync(join(to, 'dr.yaml'))).toBe(false);
    const other = join(root, 'other.txt');
    writeFileSync(other, await generateIdentity(), { mode: 0o600 });
    expect((await init(join(root, 'x'), '--identity', other)).code).toBe(exitCodes['wrong-key'].code);
    const none = await dr(['init', '--from', join(root, 'vault-west'), '--to', join(root, 'x')], {});
    expect(none.code).toBe(exitCodes['wrong-key'].code);
    const nowhere = await dr(['init', '--from', `file://${root}/etc`, '--to', join(root, 'x')], {});
    expect(nowhere.code).toBe(exitCodes['not-found'].code);
    expect(existsSync(join(root, 'x'))).toBe(false);
  });

  test('the document with --json names files and variables; runbooks outside of the folder are told apart', async () => {
    writeFileSync(config, text.replace('runbooks: books', `runbooks: ${root}/etc/books`));
    await backup();
    const made = await init(join(root, 'new'), '--json');
    expect(JSON.parse(made.stdout).result).toMatchObject({
      site: 'east',
      source: config,
      files: ['dr.yaml', 'runbooks/failover.yaml'],
      variables: [
        { name: 'VAULTS', required: true, set: false },
        { name: 'UPLOADS', required: false, set: false },
      ],
    });
    expect((await init(join(root, 'again'))).stdout).toContain(`looks for its runbooks in ${root}/etc/books`);
  });

  test('from a bucket, with the credentials of the environment', async () => {
    const server = await S3Server.start();
    onTestFinished(async () => {
      vi.unstubAllEnvs();
      await server.stop();
    });
    vi.stubEnv('AWS_ACCESS_KEY_ID', server.accessKeyId);
    vi.stubEnv('AWS_SECRET_ACCESS_KEY', server.secretAccessKey);
    const bucket = `url: "s3://vault/prod", endpoint: "${server.endpoint}", forcePathStyle: true }`;
    text = text.replace('url: "file://${VAULTS}/vault-west" }', bucket);
    writeFileSync(config, text);
    expect((await backup()).code).toBe(0);
    const to = join(root, 'new');
    const from = ['--from', 's3://vault/prod', '--endpoint', server.endpoint, '--region', 'eu-central-1'];
    expect(await dr(['init', ...from, '--to', to, '--identity', identity], {})).toMatchObject({ code: 0, stderr: '' });
    expect(readFileSync(join(to, 'dr.yaml'), 'utf8')).toBe(text);
    vi.stubEnv('AWS_SECRET_ACCESS_KEY', 'another');
    const denied = await dr(['init', ...from, '--to', join(root, 'x'), '--identity', identity], {});
    expect(denied.code).toBe(exitCodes.denied.code);
  });

  test('a damaged copy is refused, naming it', async () => {
    await backup();
    const file = join(root, 'vault-west/configuration', stored('vault-west')[0] ?? '');
    writeFileSync(file, readFileSync(file, 'utf8').replace('"site": "east"', '"site": "west"'));
    const made = await init(join(root, 'new'));
    expect(made).toMatchObject({ code: exitCodes.corrupt.code, stderr: expect.stringContaining(file) });
  });
});

describe('what the vaults keep', () => {
  test('one copy for each change of the file or a runbook, sealed; a vault that was away gets it later', async () => {
    await backup();
    await backup();
    expect(stored('vault-west')).toHaveLength(1);
    expect(readFileSync(join(root, 'vault-west/configuration', stored('vault-west')[0] ?? ''), 'utf8')).not.toContain(
      'VAULTS',
    );
    renameSync(join(root, 'vault-west'), join(root, 'away'));
    writeFileSync(join(root, 'etc/books/failover.yaml'), 'name: failover # changed\n');
    expect((await backup()).code).toBe(exitCodes['objective-broken'].code);
    renameSync(join(root, 'away'), join(root, 'vault-west'));
    expect([stored('vault-east').length, stored('vault-west').length]).toEqual([2, 1]);
    await backup();
    expect([stored('vault-east').length, stored('vault-west').length]).toEqual([2, 2]);
    expect((await init(join(root, 'new'))).code).toBe(0);
    expect(readFileSync(join(root, 'new/books/failover.yaml'), 'utf8')).toBe('name: failover # changed\n');
  });

  test('the description of the format and the restore script, also in a vault made by another version', async () => {
    await backup();
    const [script, format] = [join(root, 'vault-west/dr-restore.mjs'), join(root, 'vault-west/FORMAT.md')];
    const repository = new URL('../../', import.meta.url);
    const ours = readFileSync(new URL('restore-script/dr-restore.mjs', repository), 'utf8');
    expect(readFileSync(script, 'utf8')).toBe(ours);
    expect(readFileSync(format, 'utf8')).toBe(readFileSync(new URL('docs/format.md', repository), 'utf8'));
    for (const file of [script, format]) rmSync(file);
    writeFileSync(script, '// an older one');
    await backup();
    await backup();
    expect(existsSync(format)).toBe(true);
    expect(readFileSync(script, 'utf8')).toBe('// an older one');
    const newer = readdirSync(join(root, 'vault-west')).filter((name) => /^dr-restore-[0-9a-f]{8}\.mjs$/.test(name));
    expect(newer).toHaveLength(1);
    expect(readFileSync(join(root, 'vault-west', newer[0] ?? ''), 'utf8')).toBe(ours);
  });
});
