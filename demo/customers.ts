import { randomInt, randomUUID } from 'node:crypto';
import { Resolver } from 'node:dns/promises';
import { Agent, request } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';

/** An order that a customer was told is taken. */
export interface AcceptedOrder {
  readonly reference: string;
  readonly id: number;
  /** By the clock of the shop's database, milliseconds since 1970. */
  readonly placedAtMs: number;
  /** When the customer was told, milliseconds since 1970. */
  readonly acceptedAtMs: number;
  readonly site: string;
}

export interface ShopAnswer {
  readonly status: number;
  readonly body: Buffer;
  /** The address that the name resolved to. */
  readonly address: string;
}

export interface CustomersOptions {
  /** The name that they know the shop by. */
  readonly name: string;
  /** `127.0.0.1:port` of the DNS server. */
  readonly nameserver: string;
  /** From an address of the DNS to where it is reached on this machine. */
  readonly route: (address: string) => { readonly host: string; readonly port: number };
  readonly everyMs: number;
}

/** Customers: know the shop by its name only, order all the time, and remember every order that was confirmed to them. */
export class Customers {
  /** In the order in which they were confirmed. */
  readonly accepted: AcceptedOrder[] = [];
  /** Why the newest attempt failed; undefined when it did not. */
  trouble: string | undefined;
  readonly #options: CustomersOptions;
  readonly #resolver = new Resolver({ timeout: 1000, tries: 2 });
  // Without kept connections: a dead site's would be found dead one by one.
  readonly #agent = new Agent({ keepAlive: false });
  #resolved: { readonly address: string; readonly untilMs: number } | undefined;
  #stopped = false;
  #working: Promise<void> = Promise.resolve();

  constructor(options: CustomersOptions) {
    this.#options = options;
    this.#resolver.setServers([options.nameserver]);
  }

  start(): void {
    this.#working = this.#orderAllTheTime();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#working;
  }

  /** One request, by name: asks the DNS unless the last answer may still be kept. */
  async ask(method: 'GET' | 'POST', path: string, body?: object): Promise<ShopAnswer> {
    const address = await this.#resolve();
    const { host, port } = this.#options.route(address);
    return await new Promise((resolve, reject) => {
      const text = body === undefined ? undefined : JSON.stringify(body);
      const asking = request(
        {
          host,
          port,
          method,
          path,
          agent: this.#agent,
          timeout: 5000,
          headers: {
            host: `${this.#options.name}:${port}`,
            ...(text && { 'content-length': Buffer.byteLength(text) }),
          },
        },
        (response) => {
          const pieces: Buffer[] = [];
          response.on('data', (piece: Buffer) => pieces.push(piece));
          response.on('end', () => resolve({ status: response.statusCode ?? 0, body: Buffer.concat(pieces), address }));
          response.on('error', reject);
        },
      );
      asking.on('timeout', () => asking.destroy(new Error('no answer within 5 s')));
      asking.on('error', reject);
      asking.end(text);
    });
  }

  /** The JSON of a 200 answer. */
  async askJson<T>(method: 'GET' | 'POST', path: string, body?: object): Promise<T> {
    const answer = await this.ask(method, path, body);
    if (answer.status === 200) return JSON.parse(answer.body.toString('utf8'));
    throw new Error(`${method} ${path} at ${answer.address}: ${answer.status} ${answer.body.toString('utf8').trim()}`);
  }

  async #resolve(): Promise<string> {
    if (this.#resolved && Date.now() < this.#resolved.untilMs) return this.#resolved.address;
    const [answer] = await this.#resolver.resolve4(this.#options.name, { ttl: true });
    if (answer === undefined) throw new Error(`${this.#options.name} has no address`);
    this.#resolved = { address: answer.address, untilMs: Date.now() + answer.ttl * 1000 };
    return answer.address;
  }

  async #orderAllTheTime(): Promise<void> {
    const waiting = new Set<Promise<void>>();
    while (!this.#stopped) {
      const order = this.#order().finally(() => waiting.delete(order));
      waiting.add(order);
      // While the shop is away they try less often, and not all at once.
      await sleep(this.trouble === undefined ? this.#options.everyMs : 4 * this.#options.everyMs);
      if (waiting.size >= 10) await Promise.race(waiting);
    }
    await Promise.all(waiting);
  }

  async #order(): Promise<void> {
    const reference = randomUUID();
    const products = new Set([randomInt(1, 501), randomInt(1, 501)]);
    const lines = [...products].map((product) => ({ product, quantity: randomInt(1, 4) }));
    try {
      const order = { reference, customer: randomInt(1, 20_001), lines };
      const taken = await this.askJson<{ id: number; placedAt: string; site: string }>('POST', '/orders', order);
      const { id, placedAt, site } = taken;
      this.accepted.push({ reference, id, site, placedAtMs: Date.parse(placedAt), acceptedAtMs: Date.now() });
      this.trouble = undefined;
    } catch (error) {
      this.trouble = error instanceof Error ? error.message : String(error);
    }
  }
}
