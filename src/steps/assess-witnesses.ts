import { z } from 'zod';
import { printableUrl } from '../base/redact.ts';
import { formatDuration } from '../base/units.ts';
import { isRoute } from '../config/traffic-rules.ts';
import { defineStep, runModes, type StepContext } from './contract.ts';
import { databaseUrl } from './places.ts';

const heartbeat = z.object({
  vault: z.string(),
  database: z.string(),
  site: z.string(),
  writtenAtMs: z.number(),
  everyMs: z.number(),
  lsn: z.string(),
  /** When this process saw it, by its own clock. */
  observedAtMs: z.number(),
});
export type ObservedHeartbeat = z.infer<typeof heartbeat>;

export const witnessesOutputs = z.object({
  lastSignOfLifeMs: z
    .number()
    .optional()
    .describe('Newest heartbeat of the old site’s archives, milliseconds since 1970.'),
  heartbeats: z
    .array(heartbeat)
    .describe('What was seen of each archive: the fence compares it with what it sees later.'),
  witnesses: z
    .array(z.object({ what: z.string(), alive: z.boolean(), detail: z.string() }))
    .describe('Everything that was asked, and whether it lives.'),
});

export const assessWitnesses = defineStep({
  name: 'assess.witnesses',
  summary: 'Ask independent witnesses whether the old site lives',
  effect: 'none',
  runsInPlan: true,
  modes: runModes,
  params: z.object({}),
  outputs: witnessesOutputs,
  timeoutMs: 60_000,
  async plan({ run }) {
    return {
      target: `site ${run.from}`,
      present: 'asked while planning, see the evidence',
      will: ['ask its databases, its endpoints, its vault and the heartbeats of its archives'],
      problems: [],
    };
  },
  async run(context) {
    const { world, signal, note, clock } = context;
    const heartbeats: ObservedHeartbeat[] = [];
    for (const database of Object.keys(world.config.databases)) {
      for (const seen of await world.recovery.heartbeats(database, signal))
        if (seen.site !== context.run.site) heartbeats.push({ ...seen, observedAtMs: clock.now() });
    }
    const newest = Math.max(...heartbeats.map(({ writtenAtMs }) => writtenAtMs));
    const witnesses = await Promise.all([...databases(context), ...endpoints(context), oldVault(context)]);
    if (heartbeats.length > 0) {
      const ageMs = Math.max(0, clock.now() - newest);
      const everyMs = Math.max(...heartbeats.map(({ everyMs }) => everyMs));
      const detail = `${formatDuration(ageMs)} ago, written every ${formatDuration(everyMs)} while all is well`;
      witnesses.push({ what: 'newest archive heartbeat', alive: ageMs < 3 * everyMs, detail });
    }
    for (const { what, alive, detail } of witnesses)
      note(`${what}: ${alive ? 'alive' : 'no sign of life'} (${detail})`);
    return { ...(heartbeats.length > 0 ? { lastSignOfLifeMs: newest } : {}), heartbeats, witnesses };
  },
});

type Witness = z.output<typeof witnessesOutputs>['witnesses'][number];

function databases(context: StepContext): Array<Promise<Witness>> {
  const { world, run, signal } = context;
  return Object.keys(world.config.databases).map(async (name) => {
    const url = databaseUrl(context, name, run.from);
    const probe = await world.probes.database(url, signal);
    return {
      what: `database ${name} at ${printableUrl(url)}`,
      alive: probe.reach === 'connected',
      detail: probe.detail,
    };
  });
}

/** The old site's own checks where the configuration has some; the ports of the web at its endpoints otherwise. */
function endpoints(context: StepContext): Array<Promise<Witness>> {
  const { world, run, signal } = context;
  const checks = world.config.validation.http.filter(({ site }) => site === run.from);
  if (checks.length > 0) {
    return checks.map(async ({ url }) => {
      const probe = await world.probes.http(url, signal);
      return { what: `endpoint ${printableUrl(url)}`, alive: probe.status !== undefined, detail: probe.detail };
    });
  }
  return Object.values(world.config.traffic).flatMap(({ driver, endpoints: places }) => {
    const host = places[run.from];
    return host === undefined || isRoute(driver)
      ? []
      : [443, 80].map(async (port) => {
          const probe = await world.probes.tcp(host, port, signal);
          return { what: `endpoint ${host}:${port}`, alive: probe.reach === 'connected', detail: probe.detail };
        });
  });
}

async function oldVault(context: StepContext): Promise<Witness> {
  const { world, signal } = context;
  const store = world.vaults.find(({ name }) => name === world.from.vault);
  const what = `vault ${world.from.vault} of site ${world.from.name}`;
  if (store === undefined) return { what, alive: false, detail: 'it could not be opened' };
  try {
    await store.stat('dr-vault.json', { signal });
    return { what, alive: true, detail: 'it answers' };
  } catch (error) {
    signal.throwIfAborted();
    return { what, alive: false, detail: error instanceof Error ? error.message : String(error) };
  }
}
