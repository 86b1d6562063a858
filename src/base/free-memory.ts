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
