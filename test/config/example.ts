import { generateX25519Identity, identityToRecipient } from 'age-encryption';

/** A fresh, valid age recipient. */
export async function recipient(): Promise<string> {
  return identityToRecipient(await generateX25519Identity());
}

/** A whole configuration as the first issue of the project shows it; `edit` changes the text. */
export function exampleText(publicKey: string, edit: (text: string) => string = (text) => text): string {
  return edit(`version: 1
objectives: { rto: 1h, rpo: 15m }
vaults:
  east: { region: eu-west-1, url: "file:///srv/dr/east" }
  west: { region: eu-central-1, url: "s3://acme-dr/prod", endpoint: "http://127.0.0.1:9000", forcePathStyle: true }
sites:
  east: { region: eu-west-1, vault: east }
  west: { region: eu-central-1, vault: west }
active: east
encryption: { recipients: ["${publicKey}"] }
databases:
  orders:
    url: "\${ORDERS_DATABASE_URL}"            # the active site's server
    schedule: every 6 hours
    retention: 30 days
    wal: { flushEvery: 5s }
    recover: { west: { dataDirectory: /srv/west/orders, port: 5433 } }   # where each other site brings it up
data:
  uploads: { path: /srv/uploads, schedule: daily, retention: 90 days, recover: { west: { path: /srv/west/uploads } } }
configuration:
  settings: { path: /etc/orders, schedule: on change, retention: 1 year, recover: { west: { path: /srv/west/etc } } }
traffic:
  orders: { route53: { zone: Z123, record: orders.example.com, type: A, ttl: 30 }, endpoints: { east: 192.0.2.10, west: 198.51.100.10 } }
verification: { schedule: daily, checks: { orders: ["select count(*) > 0 from orders"] } }
`);
}
