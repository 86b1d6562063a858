import { askNameServers, askServer, serverText } from './dns-query.ts';
import { isInZone } from './record.ts';

/** An authoritative server: where it is asked, and how it is shown. */
export interface NamedServer {
  /** `host` or `host:port`. */
  readonly address: string;
  /** `ns1.example.com (192.0.2.53)`. */
  readonly shown: string;
}

/**
 * The servers that a zone names (NS), as its primary tells them, with every address. The primary is asked for addresses inside
 * the zone too: the resolvers of this machine may be what is broken. Names outside the zone are left to them.
 */
export async function nameServersOf(
  options: { readonly server: string; readonly zone: string; readonly port: number; readonly timeoutMs: number },
  signal: AbortSignal | undefined,
): Promise<readonly NamedServer[]> {
  const { server, zone, port, timeoutMs } = options;
  const named = await askNameServers(server, zone, timeoutMs, signal);
  const found = named.map(async ({ name, addresses }): Promise<NamedServer[]> => {
    const known = addresses.length > 0 || !isInZone(name, zone) ? addresses : await inZone(name);
    if (known.length === 0) return [{ address: port === 53 ? name : `${name}:${port}`, shown: name }];
    return known.map((address) => ({ address: serverText(address, port), shown: `${name} (${address})` }));
  });
  // Servers rotate their records from answer to answer.
  return (await Promise.all(found)).flat().sort((a, b) => (a.shown < b.shown ? -1 : 1));

  async function inZone(name: string): Promise<readonly string[]> {
    const answers = await Promise.all([
      askServer(server, name, 'A', timeoutMs, signal),
      askServer(server, name, 'AAAA', timeoutMs, signal),
    ]);
    return answers.flatMap(({ values }) => values);
  }
}
