/**
 * The protected system: a small shop over HTTP. The same program runs at both sites, told apart by its environment:
 *
 *     node demo/order-service.ts FOLDER   (the site's folder, only to be recognised by)
 *     SITE        east or west
 *     HOST, PORT  where it listens
 *     DATABASE    connection URL of PostgreSQL; it need not answer yet
 *     SETTINGS    folder with shop.json
 *     UPLOADS     folder with pictures
 *
 * GET  /health          200 when orders can be taken
 * POST /orders          takes an order: {"reference", "customer", "lines":[{"product","quantity"}]}; the same reference twice is one order
 * GET  /orders/latest   the newest order
 * POST /orders/known    of a list of references, those that it has
 * GET  /shop            the settings
 * GET  /uploads/NAME    a picture
 */
import { createReadStream } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import pg from 'pg';

const env = (name: string): string => {
  const value = process.env[name];
  if (value === undefined || value === '') throw new Error(`${name} is needed`);
  return value;
};
const site = env('SITE');
const settings = env('SETTINGS');
const uploads = env('UPLOADS');

const pool = new pg.Pool({
  connectionString: env('DATABASE'),
  max: 8,
  connectionTimeoutMillis: 2000,
  query_timeout: 5000,
  application_name: `orders ${site}`,
});
// The server may go away while a connection is idle; the next query says so to whoever asks.
pool.on('error', () => {});

interface Order {
  readonly reference: string;
  readonly customer: number;
  readonly lines: ReadonlyArray<{ readonly product: number; readonly quantity: number }>;
}

class BadRequest extends Error {}

async function takeOrder(body: string): Promise<object> {
  const order: Order = parse(body);
  const { currency } = await shop();
  const client = await pool.connect();
  let broken = true;
  try {
    await client.query('begin');
    const { rows } = await client.query<{ id: string; placed_at: Date }>(
      `insert into orders (reference, customer_id, currency) values ($1, $2, $3)
       on conflict (reference) do update set reference = excluded.reference returning id, placed_at`,
      [order.reference, order.customer, currency],
    );
    const [placed] = rows;
    if (placed === undefined) throw new Error('the database gave no order back');
    await client.query(
      `insert into order_lines (order_id, product_id, quantity, price_cents)
       select $1, p.id, line.quantity, p.price_cents
       from unnest($2::int[], $3::int[]) as line (product, quantity) join products p on p.id = line.product
       on conflict do nothing`,
      [placed.id, order.lines.map(({ product }) => product), order.lines.map(({ quantity }) => quantity)],
    );
    await client.query(
      `insert into payments (order_id, amount_cents)
       select $1, sum(quantity * price_cents) from order_lines where order_id = $1 on conflict do nothing`,
      [placed.id],
    );
    // Only what is committed is acknowledged.
    await client.query('commit');
    broken = false;
    return { site, id: Number(placed.id), reference: order.reference, placedAt: placed.placed_at.toISOString() };
  } finally {
    client.release(broken);
  }
}

function parse(body: string): Order {
  try {
    const order: Order = JSON.parse(body);
    if (typeof order.reference !== 'string' || !Number.isInteger(order.customer) || !Array.isArray(order.lines))
      throw new Error('reference, customer and lines are needed');
    return order;
  } catch (error) {
    throw new BadRequest(`this is no order: ${error instanceof Error ? error.message : error}`);
  }
}

async function latestOrder(): Promise<object> {
  const { rows } = await pool.query(
    `select o.id::int, o.reference, o.placed_at as "placedAt", c.name as customer, p.amount_cents::int as "amountCents", o.currency,
            (select count(*)::int from order_lines l where l.order_id = o.id) as lines
     from orders o join customers c on c.id = o.customer_id join payments p on p.order_id = o.id
     order by o.id desc limit 1`,
  );
  return { site, order: rows[0] ?? null };
}

async function knownOrders(body: string): Promise<object> {
  const { rows } = await pool.query<{ reference: string }>(
    'select reference from orders where reference = any($1::uuid[])',
    [JSON.parse(body)],
  );
  return { site, known: rows.map(({ reference }) => reference) };
}

async function shop(): Promise<{ currency: string; [name: string]: unknown }> {
  return JSON.parse(await readFile(join(settings, 'shop.json'), 'utf8'));
}

async function health(): Promise<object> {
  const { rows } = await pool.query<{ standby: boolean }>('select pg_is_in_recovery() as standby');
  if (rows[0]?.standby !== false) throw new Error('the database is read-only');
  await shop();
  return { site, status: 'taking orders' };
}

async function sendPicture(name: string, response: ServerResponse): Promise<void> {
  if (!/^[\w.-]+$/.test(name)) throw new BadRequest('no such picture');
  const path = join(uploads, name);
  const { size } = await stat(path);
  response.writeHead(200, { 'content-type': 'application/octet-stream', 'content-length': size });
  await pipeline(createReadStream(path), response);
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  const pieces: Buffer[] = [];
  for await (const piece of request) pieces.push(piece);
  return Buffer.concat(pieces).toString('utf8');
}

async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const what = `${request.method} ${request.url}`;
  try {
    const picture = /^GET \/uploads\/([^/?]+)$/.exec(what)?.[1];
    if (picture !== undefined) return await sendPicture(picture, response);
    const body = request.method === 'POST' ? await bodyOf(request) : '';
    const found =
      what === 'POST /orders'
        ? await takeOrder(body)
        : what === 'GET /orders/latest'
          ? await latestOrder()
          : what === 'POST /orders/known'
            ? await knownOrders(body)
            : what === 'GET /shop'
              ? { site, settings: await shop() }
              : what === 'GET /health'
                ? await health()
                : undefined;
    send(response, found === undefined ? 404 : 200, found ?? { site, error: `there is no ${what}` });
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    if (response.headersSent) response.destroy();
    else send(response, error instanceof BadRequest ? 400 : 503, { site, error: message });
  }
}

function send(response: ServerResponse, status: number, body: object): void {
  const text = `${JSON.stringify(body)}\n`;
  response
    .writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) })
    .end(text);
}

const server = createServer((request, response) => void answer(request, response));
server.listen(Number(env('PORT')), env('HOST'), () => process.stdout.write(`orders ${site} is listening\n`));
