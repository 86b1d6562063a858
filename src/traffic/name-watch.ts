import { getServers } from 'node:dns';
import { DrError, messageOf } from '../base/errors.ts';
import type { RecordType } from '../config/types.ts';
import type { ResolverAnswer, TrafficAnswer, TrafficState } from './contract.ts';
import { askResolver, askServer, type DnsAnswer } from './dns-query.ts';
import { sameValues, showValues } from './record.ts';

export interface NameWatchOptions {
  readonly record: string;
  readonly type: RecordType;
  /** The driver's, for errors. */
  readonly target: string;
  /** Recursive resolvers; undefined = those of this machine. */
  readonly resolvers: readonly string[] | undefined;
  /** Milliseconds to wait for one answer of one server; default 2000. */
  readonly dnsTimeoutMs?: number | undefined;
}

/** Looks at one name as DNS answers it, whoever keeps it. */
export class NameWatch {
  readonly timeoutMs: number;
  readonly #options: NameWatchOptions;

  constructor(options: NameWatchOptions) {
    this.#options = options;
    this.timeoutMs = options.dnsTimeoutMs ?? 2000;
  }

  /** What these authoritative servers answer now, all asked at once. */
  async authoritative(servers: readonly string[], signal: AbortSignal | undefined): Promise<TrafficAnswer[]> {
    const { record, type } = this.#options;
    const answers = await this.#askAll(servers, signal, (server) =>
      askServer(server, record, type, this.timeoutMs, signal),
    );
    // Of an authority the TTL is that of the record, not how long anybody keeps this answer.
    return answers.map(({ ttlSeconds, ...answer }) => answer);
  }

  async recursive(signal: AbortSignal | undefined): Promise<ResolverAnswer[]> {
    const { record, type, resolvers = getServers() } = this.#options;
    // Their answers are for people to see: a resolver that is away holds nothing up for long.
    const timeoutMs = Math.min(this.timeoutMs, 1000);
    return await this.#askAll(resolvers, signal, (server) => askResolver(server, record, type, timeoutMs, signal));
  }

  /**
   * Why not every server that answers gives the state yet; undefined once they do. Servers that do not answer are left out:
   * some of them may lie in the region that was lost. `silent` when none answers at all.
   */
  behind(answers: readonly TrafficAnswer[], state: TrafficState): string | undefined {
    const heard = answers.filter(({ error }) => error === undefined);
    const wrong = heard.filter(({ values }) => !this.gives(values, state));
    if (wrong.length > 0)
      return wrong.map(({ server, values }) => `${server} answers ${showValues(values)}`).join('; ');
    return heard.length > 0 ? undefined : NameWatch.silent;
  }

  /** What `behind` says when no server can be asked. */
  static readonly silent = 'no name server can be asked';

  /** True when these values are an answer that the state gives: all of its values, or of a divided one any single part. */
  gives(values: readonly string[], state: TrafficState): boolean {
    const { type } = this.#options;
    const divided = state.shares !== undefined && state.values.length > 1;
    if (!divided) return sameValues(type, values, state.values);
    return values.length > 0 && values.every((value) => state.values.some((one) => sameValues(type, [value], [one])));
  }

  async #askAll(
    servers: readonly string[],
    signal: AbortSignal | undefined,
    ask: (server: string) => Promise<DnsAnswer>,
  ): Promise<ResolverAnswer[]> {
    return await Promise.all(
      servers.map(async (server): Promise<ResolverAnswer> => {
        try {
          const { values, ttlSeconds } = await ask(server);
          return { server, values, ...(ttlSeconds === undefined ? {} : { ttlSeconds }) };
        } catch (error) {
          if (signal?.aborted) {
            throw new DrError('interrupted', 'asking the name servers was stopped', {
              where: this.#options.target,
              cause: signal.reason,
            });
          }
          return { server, values: [], error: messageOf(error) };
        }
      }),
    );
  }
}
