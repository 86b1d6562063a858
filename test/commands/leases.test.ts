import { rmSync } from 'node:fs';
import { beforeEach, expect, test } from 'vitest';
import { exitCodes } from '../../src/commands/exit-codes.ts';
import { FileStore } from '../../src/vault/file-store.ts';
import { acquireLease, type Lease } from '../../src/vault/lease.ts';
import { CommandWorld } from '../harness/command-world.ts';

const holder = { host: 'db-1', user: 'ops', pid: 4711, bootId: 'another machine', started: '' };
let world: CommandWorld;

beforeEach(async () => {
  world = await CommandWorld.make();
  expect((await world.dr('backup')).code).toBe(0);
});

/** Another machine's dr has the lease in every vault. */
async function heldElsewhere(name: string, purpose: string): Promise<Lease[]> {
  const leases: Lease[] = [];
  for (const [vault, root] of Object.entries(world.vaults)) {
    const store = new FileStore({ name: vault, region: vault, root });
    leases.push(await acquireLease(store, name, { purpose, holder, clock: world.clock }));
  }
  return leases;
}

test.each([
  { verb: ['backup', 'uploads'], lease: 'backup-uploads', purpose: 'backup of uploads' },
  { verb: ['retention', '--apply'], lease: 'retention', purpose: 'retention' },
  { verb: ['verify', 'uploads'], lease: 'verify-uploads', purpose: 'verification of uploads' },
  { verb: ['vault', 'repair', 'east'], lease: 'retention', purpose: 'retention', laterMs: 3_600_000 },
])('dr $verb while another dr does it says who, for what, since when and until when: exit 5', async (facts) => {
  // So that repair has something to do, and it is settled: what may still be on its way is left alone.
  world.shiftMs = facts.laterMs ?? 0;
  rmSync(`${world.vaults.east}/manifests/settings`, { recursive: true });
  const leases = await heldElsewhere(facts.lease, facts.purpose);
  const busy = await world.dr(...facts.verb);
  expect(busy.code).toBe(exitCodes['lease-held'].code);
  const time = String.raw`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z`;
  const says = `ops@db-1, process 4711 holds the lease "${facts.lease}" \\(${facts.purpose}\\) since ${time}, until ${time} unless renewed`;
  expect(busy.stdout + busy.stderr).toMatch(new RegExp(says));
  const json = await world.dr(...facts.verb, '--json');
  expect(json.code).toBe(exitCodes['lease-held'].code);
  expect(JSON.stringify(json.json())).toMatch(new RegExp(says.replaceAll('"', String.raw`\\"`)));
  expect(json.stdout).toMatch(
    /Wait until it is done; if that process is gone, the lease can be taken in [34]\d(\.\d)? s at the earliest/,
  );
  for (const lease of leases) await lease.release();
  expect((await world.dr(...facts.verb)).code).toBe(0);
});

test('reading needs no lease: what another dr does hides nothing', async () => {
  for (const name of ['retention', 'backup-uploads', 'keys']) await heldElsewhere(name, 'something long');
  for (const verb of ['status', 'backups', 'retention', 'vault check', 'vault list']) {
    const { code, stdout, stderr } = await world.dr(...verb.split(' '));
    expect(code, verb + stdout + stderr).toBe(0);
  }
});
