import { createHash } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { crc32 } from 'node:zlib';
import { S3Error } from './xml.ts';

/** Reads a request's body, decodes `aws-chunked` and checks every checksum that came with it. */
export async function readBody(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk);
  let bytes = Buffer.concat(chunks);
  const headers: Record<string, string> = {};
  for (const [name, value] of Object.entries(request.headers)) headers[name] = String(value);
  if (
    /\baws-chunked\b/.test(headers['content-encoding'] ?? '') ||
    /^STREAMING-/.test(headers['x-amz-content-sha256'] ?? '')
  ) {
    bytes = decodeChunked(bytes, headers);
    if (bytes.length !== Number(headers['x-amz-decoded-content-length'])) {
      throw new S3Error(400, 'IncompleteBody', 'The decoded body has another length than announced.');
    }
  }
  const payload = headers['x-amz-content-sha256'] ?? '';
  if (/^[0-9a-f]{64}$/.test(payload) && hash('sha256', bytes).toString('hex') !== payload) {
    throw new S3Error(
      400,
      'XAmzContentSHA256Mismatch',
      'The provided x-amz-content-sha256 header does not match the body.',
    );
  }
  const sums: ReadonlyArray<[string, () => Buffer]> = [
    ['content-md5', () => hash('md5', bytes)],
    ['x-amz-checksum-sha256', () => hash('sha256', bytes)],
    ['x-amz-checksum-sha1', () => hash('sha1', bytes)],
    ['x-amz-checksum-crc32', () => crc32Bytes(bytes)],
  ];
  for (const [name, compute] of sums) {
    if (headers[name] !== undefined && headers[name] !== compute().toString('base64')) {
      throw new S3Error(400, 'BadDigest', `The ${name} you specified did not match the calculated checksum.`);
    }
  }
  return bytes;
}

/** Undoes `aws-chunked` (`<hex size>[;chunk-signature=…]\r\n<bytes>\r\n … 0\r\n<trailers>\r\n`); trailers join the headers. */
function decodeChunked(bytes: Buffer, headers: Record<string, string>): Buffer<ArrayBuffer> {
  const out: Buffer[] = [];
  let at = 0;
  const line = () => {
    const end = bytes.indexOf('\r\n', at);
    if (end === -1) throw new S3Error(400, 'IncompleteBody', 'The chunked body ends early.');
    const text = bytes.toString('latin1', at, end);
    at = end + 2;
    return text;
  };
  for (;;) {
    const size = Number.parseInt(line(), 16);
    if (!Number.isFinite(size)) throw new S3Error(400, 'InvalidRequest', 'A chunk has no size.');
    if (size === 0) break;
    out.push(bytes.subarray(at, at + size));
    at += size;
    line();
  }
  while (at < bytes.length) {
    const trailer = line();
    const colon = trailer.indexOf(':');
    if (colon > 0) headers[trailer.slice(0, colon).toLowerCase()] = trailer.slice(colon + 1).trim();
  }
  return Buffer.concat(out);
}

function hash(name: string, bytes: Buffer): Buffer {
  return createHash(name).update(bytes).digest();
}

function crc32Bytes(bytes: Buffer): Buffer {
  const out = Buffer.alloc(4);
  out.writeUInt32BE(crc32(bytes));
  return out;
}
