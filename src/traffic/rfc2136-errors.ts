import { DrError, messageOf } from '../base/errors.ts';
import { formatDuration } from '../base/units.ts';
import type { TsigKey, TsigVerdict } from './tsig.ts';

/** Turns what a name server says to an update into what happened and what to do. */

/** No usable answer came. */
export function unansweredError(where: string, server: string, error: unknown): DrError {
  return new DrError('unreachable', `the name server does not answer the update: ${messageOf(error)}`, {
    where,
    next: `Check that ${server} runs and that TCP and UDP to it are open from here; then run the command again: it finds out whether the change was made.`,
    cause: error,
    retryable: true,
  });
}

/** The server did not accept the signature of the request. */
export function rejectedError(
  where: string,
  key: TsigKey,
  { error, serverMs }: Extract<TsigVerdict, { verdict: 'rejected' }>,
  nowMs: number,
): DrError {
  switch (error) {
    case 'BADTIME': {
      const off = serverMs === undefined ? undefined : nowMs - serverMs;
      const apart =
        off === undefined
          ? 'more than 5 min apart'
          : `${formatDuration(Math.abs(off))} apart: this machine is ${off > 0 ? 'ahead' : 'behind'}`;
      return new DrError('denied', `the clocks of this machine and of the name server are ${apart} (BADTIME)`, {
        where,
        next: 'Run NTP on both and see with "timedatectl" which one is wrong; a signature is valid for 5 minutes.',
      });
    }
    case 'BADKEY':
      // Knot DNS says so too when it knows the key and no acl lets it change the record.
      return new DrError(
        'denied',
        `the name server does not accept the TSIG key ${key.name} with ${key.algorithm} for this record (BADKEY)`,
        {
          where,
          next: 'Compare rfc2136.key.name and rfc2136.key.algorithm with the key statement of the server; of Knot DNS also see that an acl lets this key update this record.',
        },
      );
    case 'BADSIG':
      return new DrError('denied', `the name server finds the signature with the key ${key.name} wrong (BADSIG)`, {
        where,
        next: 'Compare rfc2136.key.secret with the secret of that key at the server: they differ.',
      });
    default:
      return new DrError('denied', `the name server does not accept the signature with the key ${key.name}: ${error}`, {
        where,
        next: 'Look into the log of the name server.',
      });
  }
}

interface Facts {
  readonly server: string;
  readonly zone: string;
  readonly key: TsigKey;
}

/** Response codes of RFC 1035 and RFC 2136 section 2.2. */
const names: Readonly<Record<number, string>> = {
  0: 'NOERROR',
  1: 'FORMERR',
  2: 'SERVFAIL',
  3: 'NXDOMAIN',
  4: 'NOTIMP',
  5: 'REFUSED',
  6: 'YXDOMAIN',
  7: 'YXRRSET',
  8: 'NXRRSET',
  9: 'NOTAUTH',
  10: 'NOTZONE',
};

/** An answer that is neither success nor an unmet prerequisite, or that cannot be believed. */
export function updateError(where: string, facts: Facts, rcode: number, tsig: TsigVerdict): DrError {
  const name = names[rcode] ?? `response code ${rcode}`;
  if (tsig.verdict === 'forged' || (tsig.verdict === 'unsigned' && [0, 3, 6, 7, 8].includes(rcode))) {
    const why = tsig.verdict === 'forged' ? tsig.why : 'it is not signed';
    return new DrError('denied', `the answer to the update cannot be believed: ${why} (it says ${name})`, {
      where,
      next: `See who answers at ${facts.server}: a forwarder or another server may stand between; compare the key at both ends.`,
    });
  }
  const unsigned = tsig.verdict === 'unsigned' ? ', unsigned' : '';
  return said(where, facts, rcode, `${name}${unsigned}`);
}

function said(where: string, { server, zone, key }: Facts, rcode: number, name: string): DrError {
  switch (rcode) {
    case 2:
      return new DrError('unreachable', `the name server failed to make the change (${name})`, {
        where,
        next: 'Look into its log: often the zone is frozen (rndc thaw), its directory is not writable or its disk is full. Then run the command again.',
        retryable: true,
      });
    case 4:
      return new DrError('refused', `${server} takes no dynamic updates (${name})`, {
        where,
        next: 'Allow them there (BIND: update-policy, Knot: acl with action update, PowerDNS: dnsupdate=yes).',
      });
    case 5:
      return new DrError('denied', `the name server refuses the update (${name})`, {
        where,
        next: `Allow the key ${key.name} to change this record of the zone ${zone} (BIND: update-policy { grant ${key.name} name …; }; Knot: acl; PowerDNS: TSIG-ALLOW-DNSUPDATE), and check that ${server} is the primary server.`,
      });
    case 9:
      return new DrError('not-found', `${server} does not serve the zone ${zone} as its primary (${name})`, {
        where,
        next: 'Set rfc2136.server to the primary server of the zone, and check rfc2136.zone.',
      });
    case 10:
      return new DrError('config', `the record does not lie in the zone ${zone} (${name})`, {
        where,
        next: 'Set rfc2136.zone to the zone that holds the record.',
      });
    default:
      return new DrError('refused', `the name server did not accept the update (${name})`, {
        where,
        next: 'Look into its log.',
      });
  }
}
