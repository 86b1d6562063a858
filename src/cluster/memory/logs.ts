import type { LogQuery, ObjectRef } from '../contract.ts';
import { StatusError } from '../errors.ts';
import type { MemoryObjects } from './objects.ts';

/** The end of what a pod has written, as much as is asked for. */
export function logOf(objects: MemoryObjects, pod: ObjectRef, { lines, bytes }: LogQuery): string {
  const { namespace, name } = pod;
  objects.get(objects.typeOf(pod), namespace, name);
  const text = objects.logs.get(`${namespace}/${name}`);
  if (text === undefined) {
    const message = `container "dr" in pod "${name}" is waiting to start: ContainerCreating`;
    throw new StatusError({ code: 400, reason: 'BadRequest', message });
  }
  const all = text.split(/(?<=\n)/);
  const last = lines === undefined ? text : all.slice(-lines).join('');
  return bytes === undefined ? last : Buffer.from(last).subarray(0, bytes).toString('utf8');
}
