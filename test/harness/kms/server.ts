import { createCipheriv, createDecipheriv, createHash, randomBytes } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { checkSignature } from '../s3-server/signature.ts';
import { S3Error } from '../s3-server/xml.ts';

/** Somebody who may use a key: which operations, by key id. */
export interface KmsUser {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly allow: ReadonlyArray<'kms:Encrypt' | 'kms:Decrypt'>;
}

interface Key {
  readonly material: Buffer;
  /** Where it, or a replica of it, lies. */
  readonly regions: Set<string>;
  state: 'Enabled' | 'Disabled' | 'PendingDeletion';
}

class Refusal extends Error {
  readonly status: number;
  readonly code: string;
  constructor(code: string, message: string, status = 400) {
    super(message);
    this.code = code;
    this.status = status;
  }
}

const account = '111122223333';

/** What AWS KMS does for `dr`, over HTTP with its protocol (JSON 1.1) and signatures: Encrypt and Decrypt, in several regions at one endpoint. */
export class KmsServer {
  /** Regions that do not answer: their connections are reset. */
  readonly dead = new Set<string>();
  /** `Encrypt eu-west-1` and the like, in order. */
  readonly requests: string[] = [];
  readonly users: KmsUser[];
  readonly #keys = new Map<string, Key>();
  readonly #http: Server;

  private constructor(users: readonly KmsUser[]) {
    this.users = [...users];
    this.#http = createServer((request, response) => void this.#answer(request, response));
  }

  static async start(users: readonly KmsUser[]): Promise<KmsServer> {
    const server = new KmsServer(users);
    await new Promise<void>((resolve) => server.#http.listen(0, '127.0.0.1', resolve));
    return server;
  }

  get endpoint(): string {
    return `http://127.0.0.1:${(this.#http.address() as AddressInfo).port}`;
  }

  /** Makes a key and gives its ARN; with several regions a multi-Region one. */
  createKey(region: string, ...replicas: string[]): string {
    const id = replicas.length > 0 ? `mrk-${randomBytes(16).toString('hex')}` : crypto.randomUUID();
    this.#keys.set(id, { material: randomBytes(32), regions: new Set([region, ...replicas]), state: 'Enabled' });
    return `arn:aws:kms:${region}:${account}:key/${id}`;
  }

  setState(arn: string, state: Key['state']): void {
    const key = this.#keys.get(arn.split('/')[1] ?? '');
    if (key) key.state = state;
  }

  async stop(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#http.close(() => resolve()));
    this.#http.closeAllConnections();
    await closed;
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk);
    const body = Buffer.concat(chunks);
    const region = /Credential=[^/]+\/\d+\/([^/]+)\/kms\//.exec(request.headers.authorization ?? '')?.[1] ?? '';
    if (this.dead.has(region)) return void request.socket.resetAndDestroy();
    let status = 200;
    let answer: object;
    try {
      answer = this.#perform(request, region, body);
    } catch (error) {
      if (error instanceof Refusal) {
        status = error.status;
        answer = { __type: error.code, message: error.message };
      } else {
        status = error instanceof S3Error ? error.status : 500;
        answer = {
          __type: error instanceof S3Error ? 'AccessDeniedException' : 'KMSInternalException',
          message: String(error),
        };
      }
    }
    const text = JSON.stringify(answer);
    response.writeHead(status, {
      'content-type': 'application/x-amz-json-1.1',
      'content-length': Buffer.byteLength(text),
    });
    response.end(text);
  }

  #perform(request: IncomingMessage, region: string, body: Buffer): object {
    const operation = String(request.headers['x-amz-target']).replace('TrentService.', '');
    this.requests.push(`${operation} ${region}`);
    const id = /Credential=([^/]+)\//.exec(request.headers.authorization ?? '')?.[1];
    const user = this.users.find(({ accessKeyId }) => accessKeyId === id);
    if (!user)
      throw new Refusal('UnrecognizedClientException', 'The security token included in the request is invalid.');
    checkSignature(request, user.accessKeyId, user.secretAccessKey, Date.now(), {
      service: 'kms',
      body: createHash('sha256').update(body).digest('hex'),
    });
    if (operation !== 'Encrypt' && operation !== 'Decrypt') throw new Refusal('UnknownOperationException', operation);
    const asked: { KeyId: string; EncryptionContext?: object; Plaintext?: string; CiphertextBlob?: string } =
      JSON.parse(body.toString('utf8'));
    if (!user.allow.includes(`kms:${operation}`)) {
      throw new Refusal(
        'AccessDeniedException',
        `User is not authorized to perform: kms:${operation} on this resource`,
      );
    }
    const [, , , keyRegion, , resource = ''] = asked.KeyId.split(':');
    const keyId = resource.replace('key/', '');
    const key = this.#keys.get(keyId);
    if (!key || keyRegion !== region || !key.regions.has(region)) {
      throw new Refusal('NotFoundException', `Key '${asked.KeyId}' does not exist`);
    }
    if (key.state === 'Disabled') throw new Refusal('DisabledException', `${asked.KeyId} is disabled.`);
    if (key.state === 'PendingDeletion')
      throw new Refusal('KMSInvalidStateException', `${asked.KeyId} is pending deletion.`);
    const context = Buffer.from(JSON.stringify(asked.EncryptionContext ?? {}));
    if (operation === 'Encrypt') {
      const nonce = randomBytes(12);
      const cipher = createCipheriv('aes-256-gcm', key.material, nonce).setAAD(context);
      const sealed = Buffer.concat([cipher.update(Buffer.from(asked.Plaintext ?? '', 'base64')), cipher.final()]);
      const blob = Buffer.concat([Buffer.from(`${keyId}\n`), nonce, cipher.getAuthTag(), sealed]);
      return { KeyId: asked.KeyId, CiphertextBlob: blob.toString('base64'), EncryptionAlgorithm: 'SYMMETRIC_DEFAULT' };
    }
    const blob = Buffer.from(asked.CiphertextBlob ?? '', 'base64');
    const end = blob.indexOf('\n');
    if (blob.toString('latin1', 0, Math.max(0, end)) !== keyId) {
      throw new Refusal(
        'IncorrectKeyException',
        'The key ID in the request does not identify a CMK that can perform this operation.',
      );
    }
    try {
      const opener = createDecipheriv('aes-256-gcm', key.material, blob.subarray(end + 1, end + 13)).setAAD(context);
      opener.setAuthTag(blob.subarray(end + 13, end + 29));
      const plain = Buffer.concat([opener.update(blob.subarray(end + 29)), opener.final()]);
      return { KeyId: asked.KeyId, Plaintext: plain.toString('base64'), EncryptionAlgorithm: 'SYMMETRIC_DEFAULT' };
    } catch {
      throw new Refusal('InvalidCiphertextException', '');
    }
  }
}
