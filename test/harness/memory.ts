import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

let collect: (() => void) | undefined;

/**
 * Bytes of buffers that are alive. What only waits for a garbage collection does not count: that depends on everything that was done before.
 * What a collection frees is given back by another thread, a little later: ask with `expect.poll`.
 */
export function liveBufferBytes(): number {
  if (!collect) {
    setFlagsFromString('--expose-gc');
    collect = runInNewContext('gc') as () => void;
  }
  collect();
  return process.memoryUsage().arrayBuffers;
}
