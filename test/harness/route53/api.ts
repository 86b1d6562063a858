import { randomUUID } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { ApiFault, Faults } from './faults.ts';
import { child, parseXml, writeXml, type XmlElement, type XmlValue } from './xml.ts';
import { type Change, compare, fullName, InvalidBatch, orderOf, type RecordSet, type Zone } from './zone.ts';

const namespace = 'https://route53.amazonaws.com/doc/2013-04-01/';

/** An error reply of the API. */
class ApiError extends Error {
  readonly status: number;
  readonly code: string;

  constructor(status: number, code: string, message: string) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export interface ApiOptions {
  readonly zone: Zone;
  readonly faults: Faults;
  /** Name servers that GetHostedZone names; none makes the zone private. */
  readonly nameservers: () => readonly string[];
  /** Access key ids that are known; undefined = any. */
  readonly accessKeys: readonly string[] | undefined;
  /** Two wordings of InvalidChangeBatch exist in the wild: an ErrorResponse, and a document of its own (API reference). */
  readonly batchErrorForm: 'error-response' | 'own-document';
}

/** A server (not listening yet) that speaks the REST-XML of Route 53 2013-04-01 for one hosted zone. */
export function createApi(options: ApiOptions, calls: string[]): Server {
  return createServer((request, response) => {
    handle(options, calls, request, response).catch((error: unknown) => {
      if (error instanceof InvalidBatch && options.batchErrorForm === 'own-document') {
        const messages = { Messages: { Message: error.messages }, RequestId: randomUUID() };
        reply(response, 400, 'InvalidChangeBatch', messages);
        return;
      }
      const known =
        error instanceof ApiError
          ? error
          : error instanceof InvalidBatch
            ? new ApiError(400, 'InvalidChangeBatch', error.message)
            : new ApiError(500, 'InternalFailure', String(error));
      const type = known.status < 500 ? 'Sender' : 'Receiver';
      const body = { Error: { Type: type, Code: known.code, Message: known.message }, RequestId: randomUUID() };
      reply(response, known.status, 'ErrorResponse', body);
    });
  });
}

async function handle(
  options: ApiOptions,
  calls: string[],
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  const url = new URL(request.url ?? '/', 'http://localhost');
  const route = routeOf(request.method ?? '', url.pathname);
  if (route === undefined)
    throw new ApiError(404, 'UnknownOperationException', `no such operation: ${request.method} ${url.pathname}`);
  calls.push(route.action);
  const fault = options.faults.take(route.action);
  if (fault?.kind === 'hang') return;
  if (fault?.kind === 'drop') {
    request.socket.destroy();
    return;
  }
  checkSignature(request, options.accessKeys);
  throwFault(fault, route.action, options.zone);
  const body =
    fault?.kind === 'accept'
      ? { ChangeInfo: { Id: '/change/CACCEPTED', Status: 'PENDING', SubmittedAt: new Date().toISOString() } }
      : route.serve(options, url.searchParams, Buffer.concat(chunks).toString('utf8'), decodeURIComponent(route.id));
  if (fault?.kind === 'lose-reply') request.socket.destroy();
  else reply(response, 200, `${route.action}Response`, body);
}

function reply(response: ServerResponse, status: number, root: string, body: XmlValue): void {
  const xml = writeXml(root, body).replace(`<${root}>`, `<${root} xmlns="${namespace}">`);
  response.writeHead(status, { 'content-type': 'text/xml', 'x-amzn-RequestId': randomUUID() });
  response.end(`<?xml version="1.0"?>\n${xml}`);
}

function throwFault(fault: ApiFault | undefined, action: string, zone: Zone): void {
  switch (fault?.kind) {
    case 'throttle':
      throw new ApiError(400, 'Throttling', 'Rate exceeded');
    case 'busy':
      throw new ApiError(
        400,
        'PriorRequestNotComplete',
        'The request was rejected because Route 53 was still processing a prior request.',
      );
    case 'deny':
      throw new ApiError(
        403,
        'AccessDenied',
        `User: arn:aws:iam::123456789012:user/dr is not authorized to perform: route53:${action} on resource: arn:aws:route53:::hostedzone/${zone.id} because no identity-based policy allows the route53:${action} action`,
      );
    case 'status':
      throw new ApiError(fault.status, 'ServiceUnavailable', 'Service is unable to handle request.');
    case 'before':
      fault.act();
      return;
    default:
  }
}

/** The form of a Signature Version 4 and the key id are checked, the signature itself is not: no secret is kept here. */
function checkSignature(request: IncomingMessage, known: readonly string[] | undefined): void {
  const header = request.headers.authorization ?? '';
  const key = /^AWS4-HMAC-SHA256 Credential=([^/]+)\/\d{8}\/us-east-1\/route53\/aws4_request, /.exec(header)?.[1];
  if (key === undefined) throw new ApiError(403, 'MissingAuthenticationToken', 'Missing Authentication Token');
  if (known !== undefined && !known.includes(key)) {
    throw new ApiError(403, 'InvalidClientTokenId', 'The security token included in the request is invalid.');
  }
}

type Serve = (options: ApiOptions, query: URLSearchParams, body: string, id: string) => XmlValue;

const routes: ReadonlyArray<{ action: string; method: string; path: RegExp; serve: Serve }> = [
  {
    action: 'ChangeResourceRecordSets',
    method: 'POST',
    path: /^\/2013-04-01\/hostedzone\/([^/]+)\/rrset\/?$/,
    serve: changeRecords,
  },
  {
    action: 'ListResourceRecordSets',
    method: 'GET',
    path: /^\/2013-04-01\/hostedzone\/([^/]+)\/rrset$/,
    serve: listRecords,
  },
  { action: 'GetChange', method: 'GET', path: /^\/2013-04-01\/change\/([^/]+)$/, serve: getChange },
  { action: 'GetHostedZone', method: 'GET', path: /^\/2013-04-01\/hostedzone\/([^/]+)$/, serve: getZone },
  { action: 'ListHostedZonesByName', method: 'GET', path: /^\/2013-04-01\/hostedzonesbyname()$/, serve: listZones },
];

function routeOf(method: string, path: string): { action: string; id: string; serve: Serve } | undefined {
  for (const route of routes) {
    const match = route.method === method ? route.path.exec(path) : null;
    if (match) return { action: route.action, serve: route.serve, id: match[1] ?? '' };
  }
  return undefined;
}

function checkZone(zone: Zone, id: string): void {
  if (id !== zone.id) throw new ApiError(404, 'NoSuchHostedZone', `No hosted zone found with ID: ${id}`);
}

function changeRecords({ zone }: ApiOptions, _query: URLSearchParams, body: string, id: string): XmlValue {
  checkZone(zone, id);
  const change = zone.apply(parseBatch(body));
  return { ChangeInfo: { Id: `/change/${change.id}`, Status: change.status, SubmittedAt: change.submittedAt } };
}

function parseBatch(body: string): Change[] {
  let document: XmlElement;
  try {
    document = parseXml(body);
  } catch (error) {
    throw new ApiError(400, 'InvalidInput', `Invalid XML ; ${error instanceof Error ? error.message : ''}`);
  }
  const changes = child(child(document, 'ChangeBatch'), 'Changes')?.children ?? [];
  if (document.name !== 'ChangeResourceRecordSetsRequest' || changes.length === 0) {
    throw new ApiError(400, 'InvalidInput', 'Invalid XML ; a ChangeBatch with at least one Change is required');
  }
  return changes.map((change) => {
    const action = child(change, 'Action')?.text ?? '';
    if (action !== 'CREATE' && action !== 'DELETE' && action !== 'UPSERT') {
      throw new ApiError(400, 'InvalidInput', `Invalid XML ; Value '${action}' is not a ChangeAction`);
    }
    return { action, set: parseSet(child(change, 'ResourceRecordSet')) };
  });
}

function parseSet(element: XmlElement | undefined): RecordSet {
  const text = (name: string) => child(element, name)?.text;
  const values = child(element, 'ResourceRecords')?.children.map((record) => child(record, 'Value')?.text ?? '');
  const name = text('Name');
  const type = text('Type');
  const ttl = text('TTL');
  const alias = child(element, 'AliasTarget');
  if (!name || !type || (alias === undefined && (ttl === undefined || !values?.length))) {
    throw new ApiError(
      400,
      'InvalidInput',
      'Invalid request: Expected exactly one of [AliasTarget, all of [TTL, and ResourceRecords], or TrafficPolicyInstanceId], but found none in Change with [Action=…]',
    );
  }
  const failover = text('Failover');
  const optional = { setIdentifier: text('SetIdentifier'), healthCheckId: text('HealthCheckId') };
  return {
    name,
    type,
    ...(ttl === undefined ? {} : { ttl: Number(ttl) }),
    ...(values === undefined ? {} : { values }),
    ...(optional.setIdentifier === undefined ? {} : { setIdentifier: optional.setIdentifier }),
    ...(optional.healthCheckId === undefined ? {} : { healthCheckId: optional.healthCheckId }),
    ...(text('Weight') === undefined ? {} : { weight: Number(text('Weight')) }),
    ...(failover === 'PRIMARY' || failover === 'SECONDARY' ? { failover } : {}),
  };
}

function listRecords({ zone }: ApiOptions, query: URLSearchParams, _body: string, id: string): XmlValue {
  checkZone(zone, id);
  const limit = Math.min(Number(query.get('maxitems') ?? 300), 300);
  const name = query.get('name');
  if (query.has('type') && name === null)
    throw new ApiError(400, 'InvalidInput', 'The input is not valid: type without name');
  const start =
    name === null ? [] : orderOf({ name, type: query.get('type') ?? '', setIdentifier: query.get('identifier') ?? '' });
  const all = zone.records().filter((set) => compare(start, orderOf(set)) <= 0);
  const next = all[limit];
  return {
    ResourceRecordSets: { ResourceRecordSet: all.slice(0, limit).map(setXml) },
    IsTruncated: next !== undefined,
    NextRecordName: next?.name,
    NextRecordType: next?.type,
    NextRecordIdentifier: next?.setIdentifier,
    MaxItems: limit,
  };
}

function setXml(set: RecordSet): XmlValue {
  return {
    Name: set.name,
    Type: set.type,
    SetIdentifier: set.setIdentifier,
    Weight: set.weight,
    Failover: set.failover,
    TTL: set.ttl,
    ResourceRecords: set.values === undefined ? undefined : { ResourceRecord: set.values.map((Value) => ({ Value })) },
    AliasTarget:
      set.alias === undefined
        ? undefined
        : { HostedZoneId: set.alias.zone, DNSName: set.alias.name, EvaluateTargetHealth: false },
    HealthCheckId: set.healthCheckId,
  };
}

function getChange({ zone }: ApiOptions, _query: URLSearchParams, _body: string, id: string): XmlValue {
  const change = zone.change(id);
  if (change === undefined) throw new ApiError(404, 'NoSuchChange', `Could not find resource with ID: ${id}`);
  return { ChangeInfo: { Id: `/change/${change.id}`, Status: change.status, SubmittedAt: change.submittedAt } };
}

function getZone({ zone, nameservers }: ApiOptions, _query: URLSearchParams, _body: string, id: string): XmlValue {
  checkZone(zone, id);
  const servers = nameservers();
  return {
    HostedZone: zoneXml(zone, servers.length === 0),
    ...(servers.length === 0 ? {} : { DelegationSet: { NameServers: { NameServer: servers } } }),
  };
}

function listZones({ zone, nameservers }: ApiOptions, query: URLSearchParams): XmlValue {
  const start = query.get('dnsname') ?? '';
  const listed = compare(orderOf({ name: start }), orderOf({ name: zone.name })) <= 0;
  return {
    HostedZones: listed ? { HostedZone: [zoneXml(zone, nameservers().length === 0)] } : {},
    DNSName: start === '' ? undefined : fullName(start),
    IsTruncated: false,
    MaxItems: Number(query.get('maxitems') ?? 100),
  };
}

function zoneXml(zone: Zone, isPrivate: boolean): XmlValue {
  return {
    Id: `/hostedzone/${zone.id}`,
    Name: zone.name,
    CallerReference: 'dr-harness',
    Config: { PrivateZone: isPrivate },
    ResourceRecordSetCount: zone.records().length,
  };
}
