import { spawnSync } from 'node:child_process';
import { startProcess } from './process.ts';

/** True where `moto_server` (an emulation of AWS in Python, https://docs.getmoto.org) is installed. */
export const hasMoto = spawnSync('moto_server', ['--help'], { stdio: 'ignore' }).status === 0;

/** A moto server on 127.0.0.1, empty: any credentials do. */
export async function startMoto(): Promise<{ readonly endpoint: string; stop(): Promise<void> }> {
  const server = startProcess('moto_server', ['-H', '127.0.0.1', '-p', '0']);
  const [, endpoint = ''] = await server.waitFor(/Running on (http:\/\/127\.0\.0\.1:\d+)/);
  return {
    endpoint,
    stop: async () => {
      await server.stop();
    },
  };
}
