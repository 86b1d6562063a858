import { z } from 'zod';
import { clusterAccess } from './cluster-schema.ts';
import {
  duration,
  flag,
  httpUrl,
  name,
  percentage,
  serverAddress,
  someText,
  switchUrl,
  tsigSecret,
  whole,
} from './scalars.ts';

/** Where names are kept and how they are redirected, and what takes a redirect back. */

export const credentials = z
  .strictObject({
    accessKeyId: someText('the access key id').describe('Access key id.'),
    secretAccessKey: someText('the secret access key').describe('Secret access key; write it as ${NAME}.'),
  })
  .optional()
  .describe('Only for an endpoint with keys of its own; otherwise the AWS credential chain is used.');

const record = () => someText('the name of the record').describe('Fully qualified name that clients use.');
const type = () => z.enum(['A', 'AAAA', 'CNAME']).prefault('A').describe('Type of the record.');
const ttl = () =>
  whole(0, 86_400)
    .prefault(30)
    .describe('Seconds that resolvers may keep the answer; 60 or less for a quick failover.');
const servers = (described: string) => z.array(serverAddress()).min(1).optional().describe(described);

const route53 = z
  .strictObject({
    zone: z
      .string()
      .regex(/^(\/hostedzone\/)?[A-Z0-9]{1,32}$/, {
        error: 'must be the id of a hosted zone, for example Z0123456789',
      })
      .describe('Id of the hosted zone.'),
    record: record(),
    type: type(),
    ttl: ttl(),
    routing: z
      .enum(['simple', 'weighted', 'failover'])
      .prefault('simple')
      .describe(
        'simple: one record. weighted: one record for each site, shifted by weight. failover: a PRIMARY and a SECONDARY record, which change places.',
      ),
    setIdentifiers: z
      .record(name(), someText('a set identifier'))
      .prefault({})
      .describe("Set identifier of a site's weighted or failover record, by site; default: the site's name."),
    endpoint: httpUrl().optional().describe('URL of a Route 53 compatible service other than AWS.'),
    nameservers: servers("Authoritative servers to ask, host or host:port; default: the zone's own."),
    credentials,
  })
  .optional()
  .describe('The name is a record in Route 53, changed by its API. For the data-plane way see health.');

const rfc2136 = z
  .strictObject({
    server: serverAddress().describe(
      'Primary server that takes the updates (BIND, Knot, PowerDNS), host or host:port.',
    ),
    zone: someText('the name of the zone').describe('Name of the zone, for example example.com.'),
    record: record(),
    type: type(),
    ttl: ttl(),
    key: z
      .strictObject({
        name: someText('the name of the key').describe('Name of the TSIG key, as the server knows it.'),
        algorithm: z.enum(['hmac-sha256', 'hmac-sha512']).prefault('hmac-sha256').describe('Algorithm of the key.'),
        secret: tsigSecret().describe('The shared secret in base64, as tsig-keygen prints it; write it as ${NAME}.'),
      })
      .describe('TSIG key that signs every update (RFC 8945).'),
    nameservers: servers('Authoritative servers to watch, host or host:port; default: those that the zone names (NS).'),
  })
  .optional()
  .describe('The name is a record that a server changes by DNS update (RFC 2136).');

const health = z
  .strictObject({
    record: record(),
    type: type(),
    primary: someText('the name of a site').describe(
      'The site of the PRIMARY record: it is answered while the switches say nothing else.',
    ),
    switches: z
      .array(
        z.strictObject({
          url: switchUrl().describe('s3://bucket/key or file:///path of the document that health checks read.'),
          region: someText('the region of the bucket').optional().describe('Region of the bucket.'),
          endpoint: httpUrl().optional().describe('URL of an S3 service other than AWS.'),
          forcePathStyle: flag()
            .prefault(false)
            .describe('True = bucket in the path, as most S3 services other than AWS want.'),
          credentials,
        }),
      )
      .min(1, { error: 'needs at least one place for the document' })
      .describe('One document at the recovery site, or three in three regions of which the majority counts.'),
    nameservers: servers('Authoritative servers to ask, host or host:port; default: found by the resolvers.'),
  })
  .optional()
  .describe(
    'The name is a failover record whose health check reads a document: dr changes the document, never DNS (docs/traffic.md).',
  );

const drivers = ['route53', 'rfc2136', 'health', 'httpRoute', 'virtualService'] as const;

const route = (kind: string, rule: string, described: string) =>
  z
    .strictObject({
      cluster: clusterAccess.prefault({}).describe(`The cluster that holds the ${kind}.`),
      namespace: someText('the name of a namespace').describe(`Namespace of the ${kind}.`),
      name: someText(`the name of the ${kind}`).describe(`Name of the ${kind}.`),
      rule: someText('the name or number of a rule').optional().describe(rule),
    })
    .optional()
    .describe(described);

const httpRoute = route(
  'HTTPRoute',
  'Name of the rule whose weights are changed, or its number in the list ("0" is the first); needed where there are several.',
  'Traffic is divided by the weights of a Gateway API HTTPRoute (gateway.networking.k8s.io/v1): endpoints are names of backends.',
);

const virtualService = route(
  'VirtualService',
  'Name of the HTTP route whose weights are changed, or its number in the list ("0" is the first); needed where there are several.',
  'Traffic is divided by the weights of an Istio VirtualService (networking.istio.io/v1): endpoints are hosts of destinations.',
);

export const traffic = z
  .strictObject({
    route53,
    rfc2136,
    health,
    httpRoute,
    virtualService,
    endpoints: z
      .record(name(), someText('an address, host name or backend'))
      .describe(
        'What the name points to when a site is active, by site: an address or host name; of a route, the name of its backend.',
      ),
    resolvers: servers(
      'Recursive resolvers to watch after a change, host or host:port; default: those of this machine.',
    ),
  })
  .superRefine((entry, context) => {
    const named = drivers.filter((driver) => entry[driver] !== undefined);
    if (named.length === 1) return;
    const found = named.length === 0 ? 'says not where the name is kept' : `says ${named.join(' and ')}`;
    context.addIssue({
      code: 'custom',
      message: `${found}: write one of ${drivers.slice(0, -1).join(', ')} and ${drivers.at(-1)}`,
    });
  });

/** Defaults: an error rate above 5 % over 5 min, a p95 above 2000 ms over 5 min, 3 failed health checks in 2 min. */
export const triggers = z
  .strictObject({
    errors: z
      .strictObject({
        above: percentage().prefault('5%').describe('Share of bad answers that is too much.'),
        over: duration().prefault('5m').describe('Window that is looked at.'),
      })
      .prefault({})
      .describe('Too many errors.'),
    p95: z
      .strictObject({
        above: duration().prefault('2s').describe('Time within which 95 of 100 answers have to come.'),
        over: duration().prefault('5m').describe('Window that is looked at.'),
      })
      .prefault({})
      .describe('Too slow.'),
    health: z
      .strictObject({
        failures: whole(1, 1000).prefault(3).describe('Failed rounds of the HTTP checks that are too many.'),
        within: duration().prefault('2m').describe('Window that is looked at.'),
      })
      .prefault({})
      .describe('Failing health checks.'),
    prometheus: z
      .strictObject({
        url: httpUrl().describe('Base URL of the Prometheus server, for example http://prometheus:9090.'),
        errors: someText('a PromQL query')
          .optional()
          .describe('Query for the share of failed requests (0 to 1) of the recovery site, over the window.'),
        p95: someText('a PromQL query')
          .optional()
          .describe('Query for the p95 in seconds of the requests of the recovery site, over the window.'),
      })
      .optional()
      .describe('Measures real traffic beside the HTTP checks.'),
  })
  .prefault({})
  .describe('What takes a gradual shift of traffic back by itself.');
