import { spawn, spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { armor, Encrypter, generateIdentity, identityToRecipient } from 'age-encryption';
import { beforeAll, describe, expect, test } from 'vitest';
import { silentLog } from '../../src/base/log.ts';
import { redact } from '../../src/base/redact.ts';
import { askSecret } from '../../src/commands/ask-secret.ts';
import { readIdentities } from '../../src/commands/identity.ts';
import { nodeBinary, startProcess } from '../harness/process.ts';
import { tempDir } from '../harness/temp.ts';

const passphrase = 'five slow brown horses';
const main = join(import.meta.dirname, '../../src/main.ts');
const hasScript = spawnSync('script', ['--version'], { stdio: 'ignore' }).status === 0;
const nobody = { file: undefined, value: undefined, ask: undefined };
let root: string;
let identity: string;

/** What `age -p` makes of an identity file; a low work factor, so that the tests are quick. */
async function protect(text: string, secret = passphrase, workFactor = 8): Promise<Uint8Array> {
  const encrypter = new Encrypter();
  encrypter.setPassphrase(secret);
  encrypter.setScryptWorkFactor(workFactor);
  return await encrypter.encrypt(text);
}

function save(name: string, content: string | Uint8Array): string {
  const file = join(root, name);
  writeFileSync(file, content, { mode: 0o600 });
  return file;
}

beforeAll(async () => {
  root = await tempDir('id');
  identity = await generateIdentity();
});

test('an identity file that others can read is warned of, one that is mounted as a Secret is not', async () => {
  const file = save('plain', `${identity}\n`);
  const warned: string[] = [];
  const log = { ...silentLog, warn: (_facts: object, message: string) => void warned.push(message) };
  for (const [mode, warnings] of [
    [0o600, 0],
    [0o400, 0],
    [0o440, 0],
    [0o640, 1],
    [0o444, 2],
  ] as const) {
    chmodSync(file, mode);
    expect(await readIdentities(file, nobody, log)).toEqual([identity]);
    expect(warned, mode.toString(8)).toHaveLength(warnings);
  }
  expect(warned[0]).toContain('chmod 600');
});

describe('an identity file under a passphrase', () => {
  test('opens with the passphrase of a file, of the environment, or of a person; binary or armored', async () => {
    const text = `# created: 2026\n${identity}\n`;
    const binary = save('binary', await protect(text));
    const armored = save('armored', `\n${armor.encode(await protect(text)).replaceAll('\n', '\r\n')}`);
    const holds = save('passphrase', `${passphrase}\nand what else stands there\n`);
    for (const file of [binary, armored]) {
      expect(await readIdentities(file, { ...nobody, file: holds }, silentLog)).toEqual([identity]);
      expect(await readIdentities(file, { ...nobody, value: passphrase }, silentLog)).toEqual([identity]);
      const questions: string[] = [];
      const ask = async (question: string) => {
        questions.push(question);
        return questions.length < 3 ? 'a wrong one' : passphrase;
      };
      expect(await readIdentities(file, { ...nobody, ask }, silentLog)).toEqual([identity]);
      expect(questions).toHaveLength(3);
      expect(questions[1]).toContain('That is not it');
    }
    expect(redact(`x ${passphrase} x`)).toBe('x *** x');
  });

  test('says what is wrong: nobody there, a wrong passphrase, other recipients, damage', async () => {
    const file = save('sealed', await protect(`${identity}\n`));
    const refused = (source: Parameters<typeof readIdentities>[1], at = file) =>
      expect(readIdentities(at, source, silentLog)).rejects;
    await refused(nobody).toMatchObject({ kind: 'wrong-key', next: expect.stringContaining('--passphrase-file') });
    await refused({ ...nobody, value: 'not this one' }).toMatchObject({ kind: 'wrong-key', where: file });
    let asked = 0;
    const ask = async () => `wrong ${++asked}`;
    await refused({ ...nobody, ask }).toMatchObject({ message: 'the passphrase does not open the identity file' });
    expect(asked).toBe(3);
    const empty = save('empty', '\n');
    await refused({ ...nobody, file: empty }).toMatchObject({ kind: 'wrong-key', where: empty });
    await refused({ ...nobody, file: join(root, 'none') }).toMatchObject({ kind: 'not-found' });
    const encrypter = new Encrypter();
    encrypter.addRecipient(await identityToRecipient(identity));
    const wrapped = save('wrapped', await encrypter.encrypt(`${identity}\n`));
    await refused({ ...nobody, value: passphrase }, wrapped).toMatchObject({
      message: expect.stringContaining('for other identities'),
    });
    const cut = save('cut', (await protect(`${identity}\n`)).subarray(0, -20));
    await refused({ ...nobody, value: passphrase }, cut).toMatchObject({
      message: expect.stringContaining('cannot be read'),
    });
    await refused(nobody, save('torn', '-----BEGIN AGE ENCRYPTED FILE-----\nAAAA')).toMatchObject({
      kind: 'wrong-key',
    });
  });
});

describe('a secret typed at a terminal', () => {
  function terminal() {
    const keys = new PassThrough();
    const raw: boolean[] = [];
    let shown = '';
    let interrupts = 0;
    const input = Object.assign(keys, { setRawMode: (mode: boolean) => void raw.push(mode) });
    const controller = new AbortController();
    const answer = askSecret(
      'Passphrase: ',
      input,
      { write: (text) => (shown += text) },
      {
        onInterrupt: () => interrupts++,
        signal: controller.signal,
      },
    );
    answer.catch(() => {});
    return { keys, raw, answer, controller, shown: () => shown, interrupts: () => interrupts };
  }

  test('is not shown, can be corrected, and may come in pieces', async () => {
    const it = terminal();
    const umlaut = Buffer.from('ü');
    for (const piece of [
      'xx',
      '\u0015',
      'pas',
      'y\u007fs',
      umlaut.subarray(0, 1),
      umlaut.subarray(1),
      '\u001b',
      '\r',
    ]) {
      it.keys.write(piece);
    }
    expect(await it.answer).toBe('passü');
    expect(it.shown()).toBe('Passphrase: \n');
    expect(it.raw).toEqual([true, false]);
  });

  test('Ctrl-C interrupts, Ctrl-D and an abort give up; the terminal is left as it was', async () => {
    for (const [act, interrupts] of [
      [(it: ReturnType<typeof terminal>) => it.keys.write('abc\u0003'), 1],
      [(it: ReturnType<typeof terminal>) => it.keys.write('\u0004'), 0],
      [(it: ReturnType<typeof terminal>) => it.controller.abort(new Error('stopped')), 0],
    ] as const) {
      const it = terminal();
      act(it);
      await expect(it.answer).rejects.toThrow();
      expect(it.interrupts()).toBe(interrupts);
      expect(it.raw).toEqual([true, false]);
    }
  });
});

describe('dr with a protected identity', () => {
  let env: Record<string, string>;
  let file: string;
  beforeAll(async () => {
    mkdirSync(join(root, 'uploads'));
    writeFileSync(join(root, 'uploads', 'a'), 'content');
    const config = save(
      'dr.yaml',
      `version: 1
allowSingleRegion: true
vaults: { east: { region: eu-west-1, url: "file://${root}/vault" } }
sites: { east: { region: eu-west-1, vault: east } }
active: east
encryption: { recipients: ["${await identityToRecipient(identity)}"] }
data: { uploads: { path: ${root}/uploads } }
`,
    );
    file = save('protected', await protect(`${identity}\n`, passphrase, 18));
    env = { PATH: process.env['PATH'] ?? '', DR_CONFIG: config, TERM: 'dumb' };
    const backup = await startProcess(nodeBinary, [main, 'backup'], { env }).ended;
    expect(backup.stderr + backup.stdout).toContain('uploads');
    expect(backup.code).toBe(0);
  });

  test('restores with $DR_PASSPHRASE; without, the error says how to give it', async () => {
    const restore = (to: string, more: Record<string, string>) =>
      startProcess(nodeBinary, [main, 'restore', 'uploads', '--to', join(root, to), '--identity', file], {
        env: { ...env, ...more },
      }).ended;
    const without = await restore('no', {});
    expect(without.code).not.toBe(0);
    expect(without.stderr).toContain('$DR_PASSPHRASE');
    const given = await restore('yes', { DR_PASSPHRASE: passphrase });
    expect(given).toMatchObject({ code: 0 });
    expect(readFileSync(join(root, 'yes', 'a'), 'utf8')).toBe('content');
    expect(given.stdout + given.stderr).not.toContain(passphrase);
  });

  test.skipIf(!hasScript)(
    'asks on a real terminal and echoes nothing (skipped without the program script)',
    async () => {
      const target = join(root, 'typed');
      const command = `${nodeBinary} ${main} restore uploads --to ${target} --identity ${file}`;
      const child = spawn('script', ['-qefc', command, '/dev/null'], { env, stdio: ['pipe', 'pipe', 'inherit'] });
      let shown = '';
      let typed = false;
      child.stdout.on('data', (chunk: Buffer) => {
        shown += chunk.toString();
        if (typed || !shown.includes('Passphrase of')) return;
        typed = true;
        child.stdin.write(`${passphrase}\r`);
      });
      const code = await new Promise((resolve) => child.once('close', resolve));
      expect({ code, shown }).toMatchObject({ code: 0 });
      expect(shown).toContain(`Passphrase of ${file}: `);
      expect(shown).not.toContain('horses');
      expect(readFileSync(join(target, 'a'), 'utf8')).toBe('content');
    },
  );
});
