/**
 * The object store of region west as a process: an S3 service on 127.0.0.1 that keeps its objects in DIRECTORY.
 *
 *     DEMO_S3_SECRET=… node demo/vault-server.ts DIRECTORY
 *
 * Writes one line of JSON when it is ready: {"endpoint":"http://127.0.0.1:…"}.
 */
import { S3Server } from '../test/harness/s3-server/server.ts';

const [directory] = process.argv.slice(2);
const secretAccessKey = process.env['DEMO_S3_SECRET'];
if (directory === undefined || secretAccessKey === undefined)
  throw new Error('DIRECTORY and DEMO_S3_SECRET are needed');

const server = await S3Server.start({ directory, buckets: ['dr-west'], accessKeyId: 'demo', secretAccessKey });
process.stdout.write(`${JSON.stringify({ endpoint: server.endpoint })}\n`);
