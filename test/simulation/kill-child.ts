import { createHash, randomBytes, randomInt } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { backupResource } from '../../src/backup/backup-resource.ts';
import { copyMissing } from '../../src/backup/care/repair.ts';
import type { BackupContext } from '../../src/backup/context.ts';
import { applyRetention } from '../../src/backup/retention/collect.ts';
import { DrError } from '../../src/base/errors.ts';
import { silentLog } from '../../src/base/log.ts';
import { SealPool } from '../../src/vault/seal-pool.ts';
import { contentOf, openShifted, policies, shiftedClock } from './kill-world.ts';

/**
 * A process of `dr` that does one sort of work again and again until it is killed: `kill-child.ts FOLDER RECIPIENT WORK`. Says when it
 * begins and ends each piece of work.
 */
const [folder = '', recipient = '', work = ''] = process.argv.slice(2);
const clock = shiftedClock(folder);
const stores = openShifted(folder);
const log = silentLog;

const say = (text: string) => process.stdout.write(`${text}\n`);

const context = (): BackupContext => ({
  // Now and then a vault is away.
  stores: randomInt(6) === 0 ? [randomInt(2) === 0 ? stores.east : stores.west] : [stores.east, stores.west],
  keyPolicy: { recipients: [recipient] },
  pool,
  site: 'east',
  tool: 'dr test',
  compressionLevel: 1,
  partBytes: 256 * 1024,
  scratch: path.join(folder, 'scratch'),
  clock,
  log,
});
const pool = new SealPool(1);

/** Changes what is backed up, writes down what it is, and backs it up. */
async function backup(name: string, kind: 'data' | 'configuration'): Promise<string> {
  const root = path.join(folder, 'content', name);
  change(root);
  const expected = contentOf(root);
  const digest = createHash('sha256').update(JSON.stringify(expected)).digest('hex');
  writeFileSync(path.join(folder, 'expected', digest), JSON.stringify(expected));
  const source = { type: 'directory' as const, name, kind, path: root, exclude: [], allowEmpty: false };
  const { manifest, vaults, unchanged } = await backupResource(context(), source);
  return `${manifest.id} in ${vaults.join(', ')}${unchanged ? ' unchanged' : ''}, ${manifest.reusedBytes} bytes used again`;
}

function change(root: string): void {
  mkdirSync(root, { recursive: true });
  const names = readdirSync(root);
  for (let n = names.length < 6 ? 6 : randomInt(3); n > 0; n--) {
    const size = randomInt(10) === 0 ? 1_500_000 : randomInt(100_000);
    writeFileSync(path.join(root, `f${randomInt(12)}`), randomBytes(size));
  }
  const [first] = names;
  if (first === undefined) return;
  if (names.length > 8) rmSync(path.join(root, first));
  else if (statSync(path.join(root, first)).size > 70_000) {
    const bytes = readFileSync(path.join(root, first));
    bytes.set(randomBytes(1000), randomInt(60_000));
    writeFileSync(path.join(root, first), bytes);
  }
}

async function once(): Promise<string> {
  switch (work) {
    case 'uploads':
      return await backup('uploads', 'data');
    case 'settings':
      return await backup('settings', 'configuration');
    case 'retention': {
      const all = [stores.east, stores.west];
      const { held, vaults } = await applyRetention({ stores: all, policies, clock, log });
      const said = vaults.map(({ vault, removals, blocked }) => `${vault} ${removals.length} ${blocked ?? ''}`);
      return held ?? said.join(', ');
    }
    default: {
      const [from, to] = randomInt(2) === 0 ? [stores.east, stores.west] : [stores.west, stores.east];
      const { copied, failed } = await copyMissing({ from: [from], to, policies, clock, log });
      const [first] = failed;
      if (first) throw first.error;
      return `${copied.length} to ${to.name}`;
    }
  }
}

for (;;) {
  say(`begins ${work}`);
  try {
    say(`ends ${work}: ${await once()}`);
  } catch (error) {
    // Somebody else does it, or has just done it: that is how it should be.
    if (!(error instanceof DrError) || !['lease-held', 'conflict', 'not-found', 'refused'].includes(error.kind))
      throw error;
    say(`stops ${work}: ${error.kind} ${error.message}`);
  }
  await new Promise((resolve) => setTimeout(resolve, randomInt(30)));
}
