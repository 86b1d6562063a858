import { giveBackMemory } from '../../src/base/free-memory.ts';

/**
 * Bytes of buffers that are alive. What only waits for a garbage collection does not count: that depends on everything that was done before.
 * What a collection frees is given back by another thread, a little later: ask with `expect.poll`.
 */
export function liveBufferBytes(): number {
  giveBackMemory();
  return process.memoryUsage().arrayBuffers;
}
