import { expect, test, vi } from 'vitest';
import { Random } from './random.ts';

// Ids and leases are random: here their numbers follow from the seed of the history.
const ids = vi.hoisted(() => ({ hex: (bytes: number) => '0'.repeat(2 * bytes) }));
vi.mock('node:crypto', async (original) => ({
  ...(await original<typeof import('node:crypto')>()),
  randomBytes: (bytes: number) => Buffer.from(ids.hex(bytes), 'hex'),
  randomUUID: () => ids.hex(16),
}));

// All processes of a history are this one: who is alive is not to be asked of the system.
vi.mock('../../src/vault/lease-holder.ts', async (original) => ({
  ...(await original<typeof import('../../src/vault/lease-holder.ts')>()),
  currentHolder: async () => ({ host: 'simulated', user: 'dr', pid: 1, bootId: '', started: '' }),
  isHolderDead: async () => false,
}));

const { runHistory } = await import('./history.ts');
const { realBackups } = await import('./real.ts');

/** `DR_SIMULATION=100000` for more histories, `DR_SIMULATION_SEED=123` for one alone with all that happened. */
const COUNT = Number(process.env['DR_SIMULATION'] ?? 1000);
const FIRST = Number(process.env['DR_SIMULATION_FROM'] ?? 1);
const ONE = process.env['DR_SIMULATION_SEED'];
/** One of so many histories is also run with real backups. */
const REAL_SHARE = 40;

type Options = NonNullable<Parameters<typeof runHistory>[1]>;

async function history(seed: number, options: Options = {}) {
  const random = new Random(seed ^ 0x5eed);
  ids.hex = (bytes) => random.hex(bytes);
  return await runHistory(seed, options);
}

function story({ seed, faults, trace, outcomes }: Awaited<ReturnType<typeof history>>): string {
  return [`seed ${seed} (DR_SIMULATION_SEED=${seed}):`, ...trace, '', ...outcomes, '', ...faults, ''].join('\n');
}

test.runIf(ONE !== undefined)(`the history of seed ${ONE}`, async () => {
  const told = await history(Number(ONE), { tracing: true });
  process.stdout.write(story(told));
  expect(told.faults).toEqual([]);
});

test.runIf(ONE === undefined)(
  `collection in ${COUNT} histories of concurrent processes, kills, pauses and clocks that differ`,
  { timeout: 1e8 },
  async () => {
    const ends = new Map<string, number>();
    for (let seed = FIRST; seed < FIRST + COUNT; seed++) {
      const { faults, outcomes } = await history(seed);
      if (faults.length > 0) throw new Error(story(await history(seed, { tracing: true })));
      for (const outcome of outcomes) {
        const end = outcome
          .replace(/-\d+: /, ' ')
          .replace(/^(\S+ \S*?)[: ,].*$/, '$1')
          .replace(/\d\S*/g, 'n');
        ends.set(end, (ends.get(end) ?? 0) + 1);
      }
    }
    // A simulation in which everything fails early proves nothing.
    for (const end of ['backup n', 'backup killed', 'repair n', 'restore restored', 'hold set', 'retention east']) {
      expect(ends.get(end), `${end} in ${JSON.stringify(Object.fromEntries(ends))}`).toBeGreaterThan(COUNT / 50);
    }
  },
);

test.runIf(ONE === undefined)(
  'the same with real backups, incremental ones on what each machine keeps',
  { timeout: 1e8 },
  async () => {
    let built = 0;
    for (let seed = FIRST; seed < FIRST + COUNT; seed += REAL_SHARE) {
      const real = realBackups();
      try {
        const result = await history(seed, { takeReal: real.take, tracing: true });
        if (result.faults.length > 0) throw new Error(story(result));
        built += result.outcomes.filter((outcome) => /backup-\d+: \S+ on \d/.test(outcome)).length;
      } finally {
        real.close();
      }
    }
    expect(built).toBeGreaterThan(COUNT / REAL_SHARE / 2);
  },
);

test('a seed gives the same history every time', async () => {
  for (const seed of [3, 77]) {
    const [first, second] = [await history(seed, { tracing: true }), await history(seed, { tracing: true })];
    expect(second.trace).toEqual(first.trace);
    expect(first.trace.length).toBeGreaterThan(100);
  }
});
