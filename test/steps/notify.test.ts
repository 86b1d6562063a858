import { createServer, type IncomingHttpHeaders, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { parseConfig } from '../../src/config/load.ts';
import type { NotificationConfig } from '../../src/config/types.ts';
import { notify } from '../../src/steps/notify.ts';
import { wait } from '../../src/steps/wait.ts';
import { FastClock } from '../runbook/world.ts';
import { stepContext } from './context.ts';

interface Told {
  readonly headers: IncomingHttpHeaders;
  readonly body: Record<string, unknown>;
}

let server: Server | undefined;
afterEach(() => {
  server?.closeAllConnections();
  server?.close();
});

/** A service that takes messages and answers with `status`. */
async function service(status = 200, text = 'ok'): Promise<{ url: string; told: Told[] }> {
  const told: Told[] = [];
  server = createServer(async (request, response) => {
    const pieces: Buffer[] = [];
    for await (const piece of request) pieces.push(piece as Buffer);
    told.push({ headers: request.headers, body: JSON.parse(Buffer.concat(pieces).toString()) });
    response.writeHead(status).end(text);
  });
  await new Promise<void>((resolve) => server?.listen(0, '127.0.0.1', resolve));
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook/T0KEN-in-path`, told };
}

const context = (oncall: NotificationConfig, mode: 'failover' | 'drill' = 'failover') =>
  stepContext({ notifications: { oncall } }, { mode });
const params = { to: 'oncall', text: 'east <is> down & <!channel>', severity: 'critical' };

describe('notify', () => {
  it('tells Slack in plain text: nobody is called by what a message happens to hold', async () => {
    const { url, told } = await service();
    const seen = context({ kind: 'slack', url });
    await notify.run(seen, params);
    expect(told[0]?.body).toEqual({ text: 'east &lt;is&gt; down &amp; &lt;!channel&gt;' });
    expect(seen.notes[0]).toMatch(/^told slack at 127\.0\.0\.1:\d+: east/);
    expect(seen.notes[0]).not.toContain('T0KEN');
  });

  it('opens one PagerDuty incident however often the step is repeated', async () => {
    const { url, told } = await service(202);
    const to = { kind: 'pagerduty', url, routingKey: 'R0UT1NG' } as const;
    await notify.run(context(to), params);
    await notify.run(context(to), params);
    expect(told.map(({ body }) => body['dedup_key'])).toEqual([told[0]?.body['dedup_key'], told[0]?.body['dedup_key']]);
    expect(told[0]?.body).toMatchObject({
      routing_key: 'R0UT1NG',
      event_action: 'trigger',
      payload: { severity: 'critical', source: 'dr at west' },
    });
  });

  it('marks a drill as one, and wakes nobody up for it', async () => {
    const { url, told } = await service(202);
    await notify.run(context({ kind: 'pagerduty', url, routingKey: 'R0UT1NG' }, 'drill'), params);
    expect(told[0]?.body).toMatchObject({
      payload: { severity: 'info', summary: expect.stringMatching(/^\[drill\]/) },
    });
  });

  it('sends any other webhook the whole message with its headers', async () => {
    const { url, told } = await service();
    await notify.run(context({ kind: 'webhook', url, headers: { authorization: 'Bearer x' } }), params);
    expect(told[0]?.headers.authorization).toBe('Bearer x');
    expect(told[0]?.body).toMatchObject({ text: params.text, severity: 'critical', run: { site: 'west' } });
  });

  it('says what the service answered, and never its address', async () => {
    const busy = await service(503, 'later');
    const slack = (url: string) => context({ kind: 'slack', url });
    await expect(notify.run(slack(busy.url), params)).rejects.toMatchObject({ kind: 'unreachable', retryable: true });
    const wrong = await service(403, 'invalid_token');
    const refused = await notify.run(slack(wrong.url), params).catch((error: unknown) => error);
    expect(refused).toMatchObject({ kind: 'refused', message: expect.stringContaining('HTTP 403 invalid_token') });
    expect(JSON.stringify(refused)).not.toContain('T0KEN');
    server?.close();
    server?.closeAllConnections();
    await expect(notify.run(slack(wrong.url), params)).rejects.toMatchObject({ kind: 'unreachable' });
  });

  it('plans without sending, and refuses a name that the configuration lacks', async () => {
    const { url, told } = await service();
    expect((await notify.plan(context({ kind: 'slack', url }), params)).target).toMatch(/^slack at 127/);
    await expect(notify.run(context({ kind: 'slack', url }), { ...params, to: 'nobody' })).rejects.toMatchObject({
      kind: 'config',
      message: expect.stringContaining('oncall'),
    });
    expect(told).toEqual([]);
  });
});

describe('wait', () => {
  it('waits for its time by the clock, and stops when interrupted', async () => {
    const clock = new FastClock();
    const begun = clock.now();
    await wait.run(stepContext({}, { clock }), { time: '90s' });
    expect(clock.now() - begun).toBe(90_000);
    const controller = new AbortController();
    controller.abort(new Error('Ctrl-C'));
    await expect(wait.run(stepContext({}, { clock, signal: controller.signal }), { time: '90s' })).rejects.toThrow();
  });
});

describe('the configuration of commands and notifications', () => {
  const base = `version: 1
vaults: { a: { region: r1, url: "file:///a" }, b: { region: r2, url: "file:///b" } }
sites: { a: { region: r1, vault: a }, b: { region: r2, vault: b } }
active: a
encryption: none
`;
  const reason = (text: string) => {
    try {
      parseConfig(base + text, '/etc/dr.yaml', {});
    } catch (error) {
      return String(error);
    }
    return 'accepted';
  };

  it('wants to know how a command behaves when a run was killed in the middle', () => {
    expect(reason('commands: { stop: { run: [/bin/true] } }')).toContain('needs "check", or "repeatable: true"');
    expect(reason('commands: { stop: { run: [true], repeatable: true } }')).toContain('absolute');
    expect(reason('commands: { stop: { run: [/bin/true, "{x}"], repeatable: true } }')).toBe('accepted');
  });

  it('wants exactly one way for a notification', () => {
    expect(reason('notifications: { oncall: {} }')).toContain('exactly one of slack, pagerduty and webhook');
    expect(reason('notifications: { oncall: { slack: "https://hooks.slack.com/x" } }')).toBe('accepted');
  });
});
