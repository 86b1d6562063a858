/**
 * A Route 53 compatible endpoint and its name server as a process of their own:
 *
 *     node test/harness/route53/main.ts --zone-id ZDEMO --zone-name demo.test \
 *       --record 'orders.demo.test A 5 127.0.0.1' [--http-port 0] [--dns-port 0] [--insync-ms 500] [--state-file FILE]
 *
 * Writes one line of JSON when it is ready, `{"endpoint":"http://127.0.0.1:…","nameserver":"127.0.0.1:…"}`, and ends on SIGTERM,
 * SIGINT, or when its standard input is a pipe that closes (the parent died). Records given by `--record` (name, type,
 * TTL in seconds, values) are published at the start, unless the state file has a record of that name and type.
 */
import { fstatSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { startRoute53 } from './server.ts';
import { fullName } from './zone.ts';

const { values: flags } = parseArgs({
  options: {
    'zone-id': { type: 'string' },
    'zone-name': { type: 'string' },
    record: { type: 'string', multiple: true, default: [] },
    'http-port': { type: 'string', default: '0' },
    'dns-port': { type: 'string', default: '0' },
    'insync-ms': { type: 'string', default: '0' },
    'state-file': { type: 'string' },
  },
});
const zoneId = flags['zone-id'];
const zoneName = flags['zone-name'];
if (zoneId === undefined || zoneName === undefined) throw new Error('--zone-id and --zone-name are required');

const server = await startRoute53({
  zoneId,
  zoneName,
  ports: { http: Number(flags['http-port']), dns: Number(flags['dns-port']) },
  insyncDelayMs: Number(flags['insync-ms']),
  ...(flags['state-file'] === undefined ? {} : { stateFile: flags['state-file'] }),
});
for (const text of flags.record) {
  const [name, type, ttl, ...values] = text.trim().split(/\s+/);
  if (name === undefined || type === undefined || !Number.isInteger(Number(ttl)) || values.length === 0) {
    throw new Error(`--record ${JSON.stringify(text)}: write "NAME TYPE TTL VALUE…"`);
  }
  if (server.zone.records().some((set) => set.name === fullName(name) && set.type === type)) continue;
  server.zone.seed({ name, type, ttl: Number(ttl), values });
}

let stopping = false;
const stop = () => {
  if (stopping) return;
  stopping = true;
  void server.close().then(() => process.exit(0));
};
process.on('SIGTERM', stop);
process.on('SIGINT', stop);
// Only a pipe tells that the parent is gone: at /dev/null or a file the input ends at once.
const input = fstatSync(0, { throwIfNoEntry: false });
if (input?.isFIFO() || input?.isSocket()) process.stdin.on('end', stop).on('error', stop).resume();

process.stdout.write(`${JSON.stringify({ endpoint: server.endpoint, nameserver: server.nameserver })}\n`);
