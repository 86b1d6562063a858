import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { listRunIds } from '../../src/runbook/journal.ts';
import { readReport } from '../../src/runbook/run-report.ts';
import { FileStore } from '../../src/vault/file-store.ts';
import { type Ended, startNode } from '../harness/process.ts';
import { tempDir } from '../harness/temp.ts';

// Two people give the same command in the same moment, as processes. DR_RACES=50 does it as often.
const races = Number(process.env['DR_RACES'] ?? 3);

let root: string;
const vaultOf = (name: string) => join(root, `vault-${name}`);
const west = () => new FileStore({ name: 'west', region: 'eu-central-1', root: vaultOf('west') });
const dr = async (...args: string[]): Promise<Ended> =>
  await startNode('src/main.ts', args, { env: { ...process.env, DR_CONFIG: join(root, 'dr.yaml') } }).ended;

beforeAll(async () => {
  root = await tempDir('two-executors');
  await mkdir(join(root, 'uploads'), { recursive: true });
  await writeFile(join(root, 'uploads/photo.bin'), Buffer.alloc(300_000, 7));
  await writeFile(join(root, 'dr.yaml'), configText());
  const taken = await dr('backup', 'uploads');
  expect(taken.code, taken.stderr).toBe(0);
}, 60_000);

describe('two executors started together', () => {
  it(
    'one proceeds, the other says who it is and does nothing',
    async () => {
      for (let race = 1; race <= races; race++) {
        for (const vault of ['east', 'west']) {
          for (const folder of ['runs', 'leases', 'holds', 'records/active']) {
            await rm(join(vaultOf(vault), folder), { recursive: true, force: true });
          }
        }
        await rm(join(root, 'west'), { recursive: true, force: true });
        await mkdir(join(root, 'west'));
        const command = (who: string) => dr('failover', '--to', 'west', '--yes', '--reason', who, '--json');
        const ended = await Promise.all([command('Ann'), command('Ben')]);
        const what = `race ${race}: ${ended.map(({ stdout, stderr }) => stdout + stderr).join('\n')}`;
        expect(ended.map(({ code }) => code).sort(), what).toEqual([0, 5]);
        const [winner, loser] = ended[0].code === 0 ? (['Ann', ended[1]] as const) : (['Ben', ended[0]] as const);
        expect(loser.stdout, what).toMatch(/process \d+ holds the lease.* until \d{4}-/s);
        const ids = await listRunIds(west());
        expect(ids, what).toHaveLength(1);
        const report = await readReport(west(), ids[0] ?? '');
        expect(report, what).toMatchObject({ outcome: 'succeeded', reason: winner });
        expect(await readdir(join(root, 'west/uploads')), what).toEqual(['photo.bin']);
        expect((await readFile(join(root, 'west/uploads/photo.bin'))).length, what).toBe(300_000);
      }
    },
    60_000 + races * 20_000,
  );
});

function configText(): string {
  return `version: 1
vaults:
  east: { region: eu-west-1, url: "file://${vaultOf('east')}" }
  west: { region: eu-central-1, url: "file://${vaultOf('west')}" }
sites:
  east: { region: eu-west-1, vault: east }
  west: { region: eu-central-1, vault: west }
active: east
encryption: none
data:
  uploads: { path: ${root}/uploads, schedule: daily, retention: 90 days, recover: { west: { path: ${root}/west/uploads } } }
validation: { stabilize: 2s }
scratch: ${root}/scratch
`;
}
