import { Resolver } from 'node:dns/promises';
import { codeOf, messageOf } from '../base/errors.ts';
import { plainName } from './record.ts';

/**
 * The authoritative servers of the zone that holds a name, by what resolvers say: the nearest name above it that has NS records.
 * Throws an `Error` with a reason for people.
 */
export async function authoritiesOf(
  record: string,
  resolvers: readonly string[] | undefined,
  timeoutMs: number,
): Promise<readonly string[]> {
  const resolver = new Resolver({ timeout: timeoutMs, tries: 2 });
  if (resolvers !== undefined) resolver.setServers(resolvers);
  const labels = plainName(record).split('.');
  for (let first = 0; first < labels.length; first++) {
    try {
      const servers = await resolver.resolveNs(labels.slice(first).join('.'));
      if (servers.length > 0) return servers.map(plainName).sort();
    } catch (error) {
      // No such name, or no NS records under it: the zone begins further up.
      if (codeOf(error) !== 'ENOTFOUND' && codeOf(error) !== 'ENODATA')
        throw new Error(messageOf(error), { cause: error });
    }
  }
  throw new Error('no zone above it names its servers');
}
