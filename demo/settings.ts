import type { Network } from './places.ts';

/** What the configuration of the demo is made of. */
export interface Wanted {
  readonly recipient: string;
  readonly network: Network;
  readonly folders: Folders;
  readonly westVault: { readonly endpoint: string };
  readonly dns: { readonly endpoint: string; readonly nameserver: string };
  readonly binaries: string;
  /** Who runs the recovered server when dr runs as root. */
  readonly serverUser: string | undefined;
}

/** All folders of the world. Those of east go with the disaster. */
export interface Folders {
  readonly east: SiteFolders & { readonly vault: string };
  readonly west: SiteFolders & { readonly vault: string; readonly identity: string };
  readonly config: string;
  readonly scratch: string;
}

export interface SiteFolders {
  readonly home: string;
  readonly database: string;
  readonly uploads: string;
  readonly settings: string;
}

export const shopName = 'orders.demo.test';
export const zone = { id: 'ZDEMO', name: 'demo.test', ttlSeconds: 5 };
export const flushEverySeconds = 2;

/** The configuration file, as a person would write it. Secrets come from the environment. */
export function configurationText({
  recipient,
  network,
  folders,
  westVault,
  dns,
  binaries,
  serverUser,
}: Wanted): string {
  const { east, west } = folders;
  const text = (value: string) => JSON.stringify(value);
  const user = serverUser === undefined ? '' : `\n        user: ${text(serverUser)}`;
  const health = (site: 'east' | 'west') => text(`http://${network[site].host}:${network[site].port}/health`);
  return `version: 1
objectives: { rto: 1h, rpo: 15m }
vaults:
  east: { region: eu-west-1, url: ${text(`file://${east.vault}`)} }
  west:
    region: eu-central-1
    url: s3://dr-west/prod
    endpoint: ${westVault.endpoint}
    forcePathStyle: true
    credentials: { accessKeyId: demo, secretAccessKey: "\${DEMO_S3_SECRET}" }
sites:
  east: { region: eu-west-1, vault: east }
  west: { region: eu-central-1, vault: west }
active: east
encryption: { recipients: ["${recipient}"] }
databases:
  orders:
    url: "\${ORDERS_DATABASE_URL}"
    schedule: every 6 hours
    retention: 30 days
    wal: { flushEvery: ${flushEverySeconds}s }
    recover:
      west:
        dataDirectory: ${text(west.database)}
        port: ${network.databasePorts.west}${user}
        # Nothing outside the folder of the demo: no segments in /dev/shm.
        parameters: { dynamic_shared_memory_type: mmap }
data:
  uploads: { path: ${text(east.uploads)}, schedule: daily, retention: 90 days, recover: { west: { path: ${text(west.uploads)} } } }
configuration:
  settings: { path: ${text(east.settings)}, schedule: on change, retention: 1 year, recover: { west: { path: ${text(west.settings)} } } }
traffic:
  orders:
    route53:
      zone: ${zone.id}
      record: ${shopName}
      type: A
      ttl: ${zone.ttlSeconds}
      endpoint: ${dns.endpoint}
      nameservers: ["${dns.nameserver}"]
      credentials: { accessKeyId: demo, secretAccessKey: "\${DEMO_S3_SECRET}" }
    endpoints: { east: ${network.east.published}, west: ${network.west.published} }
verification:
  schedule: daily # by a site that has the identity: "dr verify" at west does one at once
  checks: { orders: ["select count(*) > 0 from orders", "select count(*) = 20000 from customers"] }
validation:
  http:
    - { site: east, url: ${health('east')} }
    - { site: west, url: ${health('west')}, contains: taking orders }
  stabilize: 5s
daemon: { listen: "127.0.0.1:${network.daemonPort}" }
postgresql: { binaries: [${text(binaries)}] }
scratch: ${text(folders.scratch)}
`;
}
