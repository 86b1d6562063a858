import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { TriggerConfig } from '../../src/config/types.ts';
import type { HttpProbe } from '../../src/steps/ports.ts';
import { networkProbes } from '../../src/steps/probes.ts';
import { metricOf, queryUrl } from '../../src/steps/prometheus.ts';
import { TriggerWatch } from '../../src/steps/trigger-watch.ts';
import type { TriggerDecision } from '../../src/steps/triggers.ts';
import { ManualClock } from '../harness/manual-clock.ts';

const policy: TriggerConfig = {
  errors: { above: 0.05, overMs: 300_000 },
  p95: { aboveMs: 2000, overMs: 300_000 },
  health: { failures: 3, withinMs: 120_000 },
  prometheus: undefined,
};
const never = new AbortController().signal;

/** A clock whose time passes at once when somebody sleeps; real requests happen in between. */
class SleeperClock extends ManualClock {
  override async sleep(ms: number, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    this.jump(ms);
  }
}

let server: Server;
let base: string;
let answer: (url: URL) => { status: number; body: string } | undefined;
let asked: string[];

beforeEach(async () => {
  asked = [];
  answer = () => ({ status: 200, body: 'fine' });
  server = createServer((request, response) => {
    const url = new URL(request.url ?? '/', 'http://localhost');
    asked.push(`${url.pathname}${url.search}`);
    const reply = answer(url);
    if (reply === undefined) request.socket.destroy();
    else response.writeHead(reply.status).end(reply.body);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterEach(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
});

function watch(change: Partial<TriggerConfig> = {}, checks = ['/health']): { watch: TriggerWatch; clock: ManualClock } {
  const clock = new SleeperClock();
  const options = {
    policy: { ...policy, ...change },
    checks: checks.map((path) => ({ site: 'west', url: `${base}${path}`, status: 200, contains: 'fine' })),
    probes: networkProbes,
    clock,
  };
  return { watch: new TriggerWatch(options), clock };
}

describe('a gate over real HTTP answers', () => {
  it('opens after five good minutes, having looked every 5 s', async () => {
    const { watch: watching, clock } = watch();
    const begun = clock.now();
    const looks: TriggerDecision[] = [];
    const decision = await watching.gate(never, (seen) => looks.push(seen));
    expect(decision).toEqual({ decision: 'hold', complete: true, reasons: [] });
    expect(clock.now() - begun).toBe(300_000);
    expect(looks).toHaveLength(61);
    expect(asked).toHaveLength(61);
  });

  it.each([
    ['a status that was not wanted', { status: 500, body: 'fine' }],
    ['an answer without the text', { status: 200, body: 'sorry' }],
    ['no answer', undefined],
  ])('fires at the third failed health check: %s', async (_, reply) => {
    answer = () => reply;
    const { watch: watching, clock } = watch();
    const begun = clock.now();
    const decision = await watching.gate(never);
    expect(decision).toMatchObject({ decision: 'fire', reasons: ['3 health checks failed within 2 min'] });
    expect(clock.now() - begun).toBe(10_000);
  });

  it('begins anew when the traffic was changed', async () => {
    const { watch: watching, clock } = watch();
    answer = () => ({ status: 503, body: '' });
    await watching.look(never);
    await watching.look(never);
    watching.restart();
    expect(await watching.look(never)).toMatchObject({ decision: 'hold', complete: false });
    answer = () => ({ status: 200, body: 'fine' });
    const begun = clock.now();
    expect(await watching.gate(never)).toMatchObject({ decision: 'hold', complete: true });
    expect(clock.now() - begun).toBe(300_000);
  });

  it('stops when the caller stops', async () => {
    const { watch: watching } = watch();
    const stop = new AbortController();
    const pending = watching.gate(stop.signal, () => stop.abort(new Error('enough')));
    await expect(pending).rejects.toThrow('enough');
  });

  it('knows when there is nothing to see', () => {
    expect(watch().watch.canSee).toBe(true);
    expect(watch({}, []).watch.canSee).toBe(false);
    const prometheus = { url: base, errors: 'a', p95: 'b' };
    expect(watch({ prometheus }, []).watch.canSee).toBe(true);
    expect(watch({ prometheus: { ...prometheus, p95: undefined } }, []).watch.canSee).toBe(false);
  });
});

describe('Prometheus', () => {
  const vector = (...values: string[]) =>
    JSON.stringify({
      status: 'success',
      data: { resultType: 'vector', result: values.map((value) => ({ metric: {}, value: [1_767_225_600.1, value] })) },
    });

  it('is asked by its HTTP API, and fires', async () => {
    const queries = { errors: 'sum(rate(errors[5m])) / sum(rate(all[5m]))', p95: 'p95{site="west"}' };
    answer = (url) => ({
      status: 200,
      body: url.searchParams.get('query') === queries.errors ? vector('0.2') : vector('0.1'),
    });
    const { watch: watching } = watch({ prometheus: { url: `${base}/prometheus/`, ...queries } }, []);
    expect((await watching.look(never)).reasons).toEqual(['20 % of all requests fail by Prometheus, more than 5 %']);
    expect(new Set(asked.map((url) => new URL(url, base).pathname))).toEqual(new Set(['/prometheus/api/v1/query']));
    expect(asked.map((url) => new URL(url, base).searchParams.get('query')).sort()).toEqual(
      Object.values(queries).sort(),
    );
  });

  it('that is away keeps the gate shut, and its HTTP checks still fire', async () => {
    answer = (url) => (url.pathname === '/health' ? { status: 500, body: '' } : undefined);
    const { watch: watching } = watch({ prometheus: { url: base, errors: 'a', p95: 'b' } });
    expect((await watching.look(never)).reasons.join()).toContain('Prometheus gives no answer');
    expect(await watching.gate(never)).toMatchObject({ decision: 'fire' });
  });

  it('answers one number, or a reason why not', () => {
    const probe = (body: string, status = 200): HttpProbe => ({ status, body, ms: 1, detail: '' });
    const scalar = JSON.stringify({ status: 'success', data: { resultType: 'scalar', result: [1, '0.5'] } });
    expect(metricOf(probe(scalar))).toEqual({ value: 0.5 });
    expect(metricOf(probe(vector('1e-3')))).toEqual({ value: 0.001 });
    expect(metricOf(probe(vector('+Inf')))).toEqual({ value: Number.POSITIVE_INFINITY });
    const reasons: Array<[HttpProbe, string]> = [
      [probe(vector('NaN')), 'no requests'],
      [probe(vector()), 'it answers nothing'],
      [probe(vector('1', '2')), '2 series'],
      [probe(JSON.stringify({ status: 'success', data: { resultType: 'matrix', result: [] } })), 'a matrix'],
      [
        probe(JSON.stringify({ status: 'error', errorType: 'bad_data', error: 'parse error' }), 400),
        'bad_data): parse error',
      ],
      [probe('<html>', 502), 'no answer of Prometheus (HTTP 502)'],
    ];
    for (const [given, reason] of reasons)
      expect(metricOf(given)).toEqual({ problem: expect.stringContaining(reason) });
  });

  it('keeps what stands in its URL', () => {
    expect(queryUrl('http://user:word@prom:9090/base?tenant=a', 'up == 1')).toBe(
      'http://user:word@prom:9090/base/api/v1/query?tenant=a&query=up+%3D%3D+1',
    );
  });
});
