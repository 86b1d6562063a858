import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { expect, test } from 'vitest';
import { takeDirectoryBackup } from '../../src/backup/take-directory.ts';
import { readExtendedAttributes } from '../../src/base/file-attributes.ts';
import { libc } from '../../src/base/libc.ts';
import { tempDir } from '../harness/temp.ts';
import { backupWorld } from './fixture.ts';
import { fileVault, restoreScript, rootOf } from './restore-script.ts';

const setfattr = '/usr/bin/setfattr';

test.runIf(process.platform === 'linux')(
  'dr-restore.mjs leaves extended attributes in a file that setfattr reads',
  async () => {
    const calls = libc();
    if (!calls) throw new Error('koffi is not installed');
    const store = await fileVault();
    const world = await backupWorld([store]);
    const source = path.join(await tempDir('tree'), 'uploads');
    mkdirSync(path.join(source, 'folder'), { recursive: true });
    const names = [
      'folder',
      'folder/plain',
      'back\\141slash',
      'line\nbreak = "\u00fc"',
      Buffer.from('66fffe80', 'hex'),
    ];
    const placeIn = (root: string, name: string | Buffer) =>
      Buffer.concat([Buffer.from(`${root}/`), Buffer.from(name)]);
    for (const name of names) {
      if (name !== 'folder') writeFileSync(placeIn(source, name), 'x');
      calls.setAttribute(placeIn(source, name), Buffer.from('user.a=b\\c'), Buffer.from([0, 1, 255, 10]));
      calls.setAttribute(placeIn(source, name), Buffer.from('user.empty'), Buffer.alloc(0));
    }
    const context = { ...world.context, keyPolicy: 'none' as const };
    await takeDirectoryBackup(context, { name: 'uploads', kind: 'data', path: source, exclude: [], allowEmpty: false });
    await world.pool.close();
    const target = path.join(await tempDir('restored'), 'uploads');
    const ended = restoreScript(rootOf(store), 'restore', 'uploads', target);
    expect(ended).toMatchObject({
      code: 0,
      stderr: expect.stringContaining(`setfattr -h --restore=${target}.attributes`),
    });
    const dump = readFileSync(`${target}.attributes`, 'latin1');
    expect(dump).toContain(`# file: ${target}/folder/plain\nuser.a\\075b\\134c=0sAAH/Cg==\nuser.empty=0s\n\n`);
    if (!existsSync(setfattr)) return;
    execFileSync(setfattr, ['-h', `--restore=${target}.attributes`]);
    for (const name of names) {
      expect(readExtendedAttributes(placeIn(target, name), calls)).toEqual(
        readExtendedAttributes(placeIn(source, name), calls),
      );
    }
  },
);
