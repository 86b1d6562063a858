import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { libc } from './libc.ts';

/**
 * Frees the memory behind a large view at once, without waiting for a garbage collection: V8 weighs such buffers lightly and lets
 * tens of megabytes of them stand in each thread. Only for a view whose buffer nobody else uses; it must not be used afterwards.
 */
export function freeBuffer(view: Uint8Array): void {
  const { buffer } = view;
  // Small buffers of Node's are parts of one that is shared.
  if (buffer.byteLength <= Buffer.poolSize) return;
  if (buffer instanceof ArrayBuffer) buffer.transfer(0);
}

type Collect = (options: { type: 'major'; execution: 'sync'; flavor: 'last-resort' }) => void;
let collect: Collect | undefined;

/**
 * Gives the memory of work that is over back to the system: for a process that then only waits. Without it V8 keeps what it needed at most
 * until something else needs it, and the C library what was freed between what is still used: more than 100 MB after a backup of 10,000
 * objects. Takes some tens of milliseconds.
 */
export function giveBackMemory(): void {
  if (!collect) {
    setFlagsFromString('--expose-gc');
    collect = runInNewContext('gc') as Collect;
  }
  collect({ type: 'major', execution: 'sync', flavor: 'last-resort' });
  libc()?.trimMemory?.();
}
