import { Readable } from 'node:stream';
import {
  type GetObjectCommandOutput,
  PutObjectCommand,
  type PutObjectCommandInput,
  type S3Client,
} from '@aws-sdk/client-s3';
import { DrError } from '../base/errors.ts';
import { type Body, type ByteRange, bodyBytes, bodyLength } from './store.ts';

/** Several views up to this size are joined: cheaper than a stream. */
const JOIN_BYTES = 256 * 1024;

/** Sends an object with its SHA-256 as checksum to be kept and as the payload hash of the signature (computed once). Gives its version. */
export async function sendBody(
  client: S3Client,
  target: Pick<
    PutObjectCommandInput,
    'Bucket' | 'Key' | 'IfNoneMatch' | 'ObjectLockMode' | 'ObjectLockRetainUntilDate'
  >,
  body: Body,
  sha256: Uint8Array,
  options: { abortSignal?: AbortSignal },
): Promise<string | undefined> {
  const length = bodyLength(body);
  const digest = Buffer.from(sha256);
  const command = new PutObjectCommand({
    ...target,
    Body:
      body instanceof Uint8Array || length <= JOIN_BYTES ? bodyBytes(body) : Readable.from(body, { objectMode: false }),
    ContentLength: length,
    ContentType: 'application/octet-stream',
    ChecksumSHA256: digest.toString('base64'),
    // With a lock S3 wants to be told of the checksum in this way, too.
    ...(target.ObjectLockMode === undefined ? {} : { ChecksumAlgorithm: 'SHA256' }),
  });
  command.middlewareStack.add(
    (next) => (args) => {
      const { request } = args;
      if (typeof request === 'object' && request !== null && 'headers' in request) {
        Object.assign(request.headers as Record<string, string>, { 'x-amz-content-sha256': digest.toString('hex') });
      }
      return next(args);
    },
    { step: 'build', name: 'payloadHash' },
  );
  const { ETag, VersionId } = await client.send(command, options);
  if (ETag !== undefined) return VersionId;
  throw new DrError('corrupt', 'the answer to a write is not one of S3: it has no ETag', {
    where: `s3://${target.Bucket}/${target.Key}`,
    next: 'Check that the endpoint is an S3 service and that no proxy answers in its place.',
    retryable: true,
  });
}

/**
 * Reads the whole body of an answer into one buffer and insists on its length: that of `range`, or the one announced.
 * A body that ends early or runs on is an error that may be retried; an object shorter than `range` is `corrupt`.
 */
export async function receiveBody(
  answer: GetObjectCommandOutput,
  range: ByteRange | undefined,
  where: string,
  onBytes: (bytes: number) => void,
): Promise<Buffer> {
  const { Body: stream, ContentLength: announced, ContentRange: served } = answer;
  if (!(stream instanceof Readable)) throw new DrError('internal', 'the S3 client gave no stream', { where });
  try {
    if (announced === undefined) {
      throw new DrError('corrupt', 'the store did not say how long the object is', { where, retryable: true });
    }
    if (range && served === undefined && (range.offset !== 0 || announced !== range.length)) {
      const next = 'Use a store that implements ranged reads (HTTP 206).';
      throw new DrError('refused', 'the store ignores byte ranges', { where, next });
    }
    if (range && announced !== range.length) {
      throw new DrError(
        'corrupt',
        `the object is too short: ${announced} of ${range.length} bytes from ${range.offset}`,
        {
          where,
        },
      );
    }
    const bytes = Buffer.allocUnsafe(announced);
    let done = 0;
    for await (const chunk of stream as AsyncIterable<Buffer>) {
      onBytes(chunk.length);
      if (done + chunk.length <= announced) chunk.copy(bytes, done);
      done += chunk.length;
    }
    if (done !== announced) {
      throw new DrError('corrupt', `the store sent ${done} bytes of ${announced}`, { where, retryable: true });
    }
    return bytes;
  } finally {
    stream.destroy();
  }
}
