import { expect, test } from 'vitest';
import type { Service } from '../../src/daemon/service.ts';
import { Supervisor } from '../../src/daemon/supervisor.ts';
import { ManualClock, memoryLog } from './support.ts';

class TestService implements Service {
  readonly name: string;
  runs = 0;
  readonly stops: number[] = [];
  readonly #order: string[];
  #end: { resolve: () => void; reject: (error: unknown) => void } | undefined;

  constructor(name: string, order: string[] = []) {
    this.name = name;
    this.#order = order;
  }

  async run(): Promise<void> {
    this.runs++;
    await new Promise<void>((resolve, reject) => {
      this.#end = { resolve, reject };
    });
  }

  fail(error: Error): void {
    this.#end?.reject(error);
  }

  leave(): void {
    this.#end?.resolve();
  }

  async stop(graceMs: number): Promise<void> {
    this.stops.push(graceMs);
    this.#order.push(this.name);
    this.#end?.resolve();
  }
}

function setUp() {
  const clock = new ManualClock();
  const { log, lines } = memoryLog();
  const supervisor = new Supervisor({ clock, log, baseMs: 1000, maxMs: 8000 });
  return { clock, lines, supervisor };
}

test('a service that fails is started again, ever more slowly, and no other one is touched', async () => {
  const { clock, lines, supervisor } = setUp();
  const [bad, good] = [new TestService('bad'), new TestService('good')];
  supervisor.add(bad);
  supervisor.add(good);
  await clock.advance(0);
  const pauses: number[] = [];
  for (let failures = 1; failures <= 6; failures++) {
    bad.fail(new Error('broken'));
    await clock.advance(0);
    expect(supervisor.states()[0]).toMatchObject({ name: 'bad', state: 'waiting', failures });
    const from = clock.now();
    while (bad.runs === failures) await clock.advance(100);
    pauses.push(clock.now() - from);
  }
  expect(pauses.every((ms, i) => ms >= Math.min(8000, 1000 * 2 ** i) / 2 && ms <= 8100)).toBe(true);
  expect(pauses[5]).toBeGreaterThanOrEqual(4000);
  expect(good.runs).toBe(1);
  expect(lines.filter(({ level }) => level === 'error')).toHaveLength(6);
  await supervisor.stop(0);
});

test('after a long time without a failure the pauses begin small again', async () => {
  const { clock, supervisor } = setUp();
  const service = new TestService('service');
  supervisor.add(service);
  for (let i = 0; i < 4; i++) {
    service.fail(new Error('broken'));
    await clock.advance(10_000);
  }
  await clock.advance(10 * 60_000);
  service.fail(new Error('broken'));
  await clock.advance(1000);
  expect(supervisor.states()[0]).toMatchObject({ state: 'running', failures: 1 });
  await supervisor.stop(0);
});

test('a service that ends without being told to has failed', async () => {
  const { clock, supervisor } = setUp();
  const service = new TestService('service');
  supervisor.add(service);
  service.leave();
  await clock.advance(0);
  expect(String(supervisor.states()[0]?.lastError)).toContain('without being told to');
  await supervisor.stop(0);
});

test('the last added stops first, all share one grace time, and one that waits for its restart stops too', async () => {
  const { clock, supervisor } = setUp();
  const order: string[] = [];
  const services = ['first', 'second', 'third'].map((name) => new TestService(name, order));
  for (const service of services) supervisor.add(service);
  services[1]?.fail(new Error('broken'));
  await clock.advance(0);
  await supervisor.stop(5000);
  expect(order).toEqual(['third', 'second', 'first']);
  expect(services.map(({ stops }) => stops)).toEqual([[5000], [5000], [5000]]);
  await clock.advance(60_000);
  expect(services.map(({ runs }) => runs)).toEqual([1, 1, 1]);
});

test('a service can be taken out while the others go on', async () => {
  const { clock, supervisor } = setUp();
  const [gone, kept] = [new TestService('gone'), new TestService('kept')];
  supervisor.add(gone);
  supervisor.add(kept);
  await supervisor.remove([gone, new TestService('unknown')], 0);
  await clock.advance(60_000);
  expect(supervisor.states().map(({ name }) => name)).toEqual(['kept']);
  expect([gone.runs, kept.runs]).toEqual([1, 1]);
  await supervisor.stop(0);
});
