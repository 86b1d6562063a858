import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { vaultDocuments } from '../../src/vault/documents.ts';
import { enrolVault } from '../../src/vault/enrol.ts';
import { FileStore } from '../../src/vault/file-store.ts';
import { tempDir } from '../harness/temp.ts';

export interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs the restore script of the vault, far from this checkout. */
export function restoreScript(vault: string, ...args: string[]): Ended {
  const script = path.join(vault, 'dr-restore.mjs');
  const { status, stdout, stderr } = spawnSync(process.execPath, [script, vault, ...args], {
    cwd: '/',
    env: {},
    encoding: 'utf8',
  });
  return { code: status, stdout, stderr };
}

/** An enrolled vault in a directory, with its documents. */
export async function fileVault(): Promise<FileStore> {
  const store = new FileStore({ name: 'west', region: 'r', root: path.join(await tempDir('vault'), 'vault') });
  await enrolVault(store, { documents: await vaultDocuments() });
  return store;
}

export const rootOf = (store: FileStore) => fileURLToPath(store.location);

export async function identityFile(identity: string): Promise<string> {
  const file = path.join(await tempDir('identity'), 'identity.txt');
  writeFileSync(file, `# created: today\n${identity}\n`, { mode: 0o600 });
  return file;
}
