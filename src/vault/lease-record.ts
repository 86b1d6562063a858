import { z } from 'zod';
import { DrError, messageOf } from '../base/errors.ts';
import { layout } from './layout.ts';
import type { LeaseHolder } from './lease-holder.ts';
import type { CallOptions, ObjectStore } from './store.ts';

/** One generation of a lease as stored. Times in milliseconds since 1970, by the holder's clock. */
export interface LeaseRecord {
  readonly version: 1;
  readonly generation: number;
  /** The same for all generations of one holding; no two holdings share it. */
  readonly holding: string;
  readonly holder: LeaseHolder;
  /** What it is held for: `failover to west`. */
  readonly purpose: string;
  readonly acquiredAt: number;
  readonly expiresAt: number;
  /** The holder gave it back: it is free at once. */
  readonly released: boolean;
}

const recordSchema = z.object({
  version: z.literal(1),
  generation: z.number().int().positive(),
  holding: z.string().min(1),
  holder: z.object({
    host: z.string(),
    user: z.string(),
    pid: z.number().int(),
    bootId: z.string(),
    started: z.string(),
  }),
  purpose: z.string(),
  acquiredAt: z.number(),
  expiresAt: z.number(),
  released: z.boolean(),
});

/** The highest generation of a lease, or undefined when it was never held. */
export async function readLease(
  store: ObjectStore,
  name: string,
  options: CallOptions = {},
): Promise<LeaseRecord | undefined> {
  // A generation may be cleared away between listing and reading: then a higher one is there.
  for (let attempt = 1; ; attempt++) {
    const generation = (await generations(store, name, options)).at(-1);
    if (generation === undefined) return undefined;
    try {
      return await readGeneration(store, name, generation, options);
    } catch (error) {
      if (!(error instanceof DrError && error.kind === 'not-found') || attempt === 5) throw error;
    }
  }
}

/** The generations of a lease that are stored, ascending. */
export async function generations(store: ObjectStore, name: string, options: CallOptions = {}): Promise<number[]> {
  const found: number[] = [];
  for await (const { key } of store.list(layout.lease(name), options)) {
    const digits = /\/(\d{10})\.json$/.exec(key)?.[1];
    if (digits !== undefined) found.push(Number(digits));
  }
  return found;
}

async function readGeneration(
  store: ObjectStore,
  name: string,
  generation: number,
  options: CallOptions,
): Promise<LeaseRecord> {
  const key = layout.leaseGeneration(name, generation);
  const bytes = await store.read(key, undefined, options);
  try {
    return recordSchema.parse(JSON.parse(bytes.toString('utf8')));
  } catch (error) {
    throw new DrError('corrupt', `lease ${name} cannot be read: ${messageOf(error)}`, {
      where: `${store.location}/${key}`,
      next: `Make sure that nothing of dr runs, then delete the objects under ${layout.lease(name)} in vault ${store.name}.`,
      cause: error,
    });
  }
}
