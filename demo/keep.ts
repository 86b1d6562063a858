import { writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { urlOf } from './database.ts';
import type { Narrator } from './narrator.ts';
import { clone, type Place } from './places.ts';
import { shopName } from './settings.ts';
import type { World } from './world.ts';

/** Writes the environment of site west into a file, and says what can be tried. */
export function invite(world: World, place: Place, narrator: Narrator): void {
  const { network, database, nameserver, drEnv, root } = world;
  const names = ['DR_CONFIG', 'DR_SITE', 'DR_IDENTITY_FILE', 'ORDERS_DATABASE_URL', 'DEMO_S3_SECRET', 'DR_LOG_LEVEL'];
  const lines = names.map((name) => `export ${name}='${drEnv.west[name] ?? ''}'`);
  const shopUrl = urlOf({ ...database, port: network.databasePorts.west }, 'shop');
  writeFileSync(join(root, 'env.sh'), `${[...lines, `export SHOP_DATABASE_URL='${shopUrl}'`].join('\n')}\n`, {
    mode: 0o600,
  });
  const shop = `http://${network.west.host}:${network.west.port}`;
  const [host, port] = nameserver.split(':');
  const tries: ReadonlyArray<readonly [string, string]> = [
    [`. ${relative(clone, place.entry)}/env.sh`, 'the environment of site west: configuration, identity, secrets'],
    ['npm run --silent dr -- status', 'how safe is it now? (vault east is gone: not cross-region, exit code 4)'],
    ['npm run --silent dr -- backups', 'what the vaults can bring back'],
    ['npm run --silent dr -- runs', 'the journals; add an id for the report of one'],
    ['npm run --silent dr -- verify', 'proof that vault west alone brings everything back'],
    ['npm run --silent dr -- doctor', 'what is wrong, and how to mend it'],
    ['npm run --silent dr -- restore uploads --to /tmp/dr-uploads', 'a restore by hand, from vault west alone'],
    [`curl ${shop}/orders/latest`, 'the shop at west'],
    [`dig @${host} -p ${port} ${shopName}`, 'what the DNS answers'],
    ['psql "$SHOP_DATABASE_URL"', 'its database'],
    [`less ${relative(clone, place.entry)}/dr.yaml`, 'the configuration; the logs are in log/ beside it'],
    ['npm run demo -- --stop', 'stop everything and remove .demo'],
  ];
  narrator.chapter('It is left running. Try, in this folder:');
  const width = Math.max(...tries.map(([command]) => command.length));
  for (const [command, what] of tries) narrator.say(`  ${command.padEnd(width)}  ${narrator.dim(`# ${what}`)}`);
}
