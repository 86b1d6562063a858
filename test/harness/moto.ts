import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { CreateHostedZoneCommand, Route53Client } from '@aws-sdk/client-route-53';
import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3';
import { startProcess } from './process.ts';

/** moto takes any. */
export const motoCredentials = { accessKeyId: 'AKIDRTEST', secretAccessKey: 'a-secret-that-must-never-show' };

/** Whether `moto_server`, an emulator of AWS that is not ours, can be started here. */
export const hasMoto = canRun();

/** A running moto on a free port of 127.0.0.1. */
export interface Moto extends AsyncDisposable {
  readonly endpoint: string;
  /** Makes a hosted zone; returns its id. */
  makeZone(name: string): Promise<string>;
  makeBucket(name: string): Promise<void>;
  stop(): Promise<void>;
}

export async function startMoto(): Promise<Moto> {
  const server = startProcess('moto_server', ['-H', '127.0.0.1', '-p', '0']);
  const [, endpoint = ''] = await server.waitFor(/Running on (http:\/\/127\.0\.0\.1:\d+)/);
  const client = { region: 'us-east-1', endpoint, credentials: motoCredentials };
  const route53 = new Route53Client(client);
  const s3 = new S3Client({ ...client, forcePathStyle: true });
  const stop = async () => {
    route53.destroy();
    s3.destroy();
    await server.kill9();
  };
  return {
    endpoint,
    makeZone: async (Name) => {
      const reply = await route53.send(new CreateHostedZoneCommand({ Name, CallerReference: Name }));
      return (reply.HostedZone?.Id ?? '').replace('/hostedzone/', '');
    },
    makeBucket: async (Bucket) => void (await s3.send(new CreateBucketCommand({ Bucket }))),
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

/** Looked for only: to start it takes seconds. */
function canRun(): boolean {
  return (process.env['PATH'] ?? '').split(delimiter).some((folder) => existsSync(join(folder, 'moto_server')));
}
