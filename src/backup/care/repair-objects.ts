import { randomUUID } from 'node:crypto';
import { DrError } from '../../base/errors.ts';
import { copyDataKey } from '../../vault/copy-key.ts';
import { readKeyFacts } from '../../vault/keys.ts';
import { layout } from '../../vault/layout.ts';
import { currentHolder } from '../../vault/lease-holder.ts';
import { generations, type LeaseRecord } from '../../vault/lease-record.ts';
import { sha256 } from '../../vault/seal.ts';
import { requireManifest } from './check-vault-backups.ts';
import type { VaultProblem } from './check-vault-findings.ts';
import { requireExact, requireRecord } from './check-vault-records.ts';
import { isGood, type Mended, type Mending, noCopy, type Require, replace } from './repair-replace.ts';
import { mendWal } from './repair-wal-object.ts';

/** A holder renews its lease every few seconds: a generation that nobody has followed for this long is of nobody who works. */
const LEASE_REST_MS = 5 * 60_000;

/** Mends one object. Throws `corrupt` when no vault has a good copy, and what the target throws. */
export async function mendObject(mending: Mending, problem: VaultProblem): Promise<Mended> {
  const { target, signal } = mending;
  const { kind, key, state, content } = problem;
  switch (kind) {
    case 'content':
      return await replace(mending, key, (bytes, where) => {
        if (bytes.length === content?.size && sha256(bytes).toString('hex') === content.sha256) return;
        throw new DrError('corrupt', `${key} is not what its manifest says`, { where });
      });
    case 'manifest':
      return await replace(mending, key, (bytes, where) => void requireManifest(key, bytes, where));
    case 'key':
      return state === 'missing' ? await copyKey(mending, key) : await mendKey(mending, key);
    case 'record':
      return await replace(mending, key, (bytes, where) => {
        if (requireRecord(key, bytes, where) === undefined) throw new DrError('corrupt', 'it is no record', { where });
        if (problem.sha256 !== undefined && sha256(bytes).toString('hex') !== problem.sha256)
          throw new DrError('corrupt', 'it is not the document that the report was stored with', { where });
      });
    case 'hint':
      await target.delete([key], { signal });
      return { how: 'removed' };
    case 'lease':
      return await endLease(mending, key);
    case 'wal':
      return await mendWal(mending, key);
    case 'marker':
    case 'document':
      throw new DrError('internal', `${key} is not mended as an object`);
  }
}

function requireKey(key: string): Require {
  const id = key.split('/')[1] ?? '';
  return (bytes, where) => {
    readKeyFacts(bytes, id, where);
    requireExact(bytes, where);
  };
}

/** The newest generation from whichever vault has it whole. */
async function copyKey({ sources, target, signal }: Mending, key: string): Promise<Mended> {
  const copied = await copyDataKey(sources, target, key.split('/')[1] ?? '', signal);
  if (copied.how === 'missing') throw noCopy(key, copied.cause);
  return copied.how === 'copied' ? copied : { how: 'good already' };
}

/** A damaged generation is replaced; one that no vault has good any more goes where a newer one that can be read counts instead. */
async function mendKey(mending: Mending, key: string): Promise<Mended> {
  const { target, signal } = mending;
  try {
    return await replace(mending, key, requireKey(key));
  } catch (error) {
    if (!(error instanceof DrError && error.kind === 'corrupt')) throw error;
    const folder = key.replace(/[^/]*$/, '');
    let newest = key;
    for await (const found of target.list(folder, { signal })) newest = found.key;
    if (newest === key || !(await isGood(target, newest, requireKey(newest), signal))) throw error;
    await target.delete([key], { signal });
    return { how: 'removed' };
  }
}

/** Puts a released generation above one that cannot be read, so that the lease can be taken again; its numbers only grow. */
async function endLease({ target, nowMs, signal }: Mending, folder: string): Promise<Mended> {
  const name = folder.replace(/^leases\/|\/$/g, '');
  const generation = (await generations(target, name, { signal })).at(-1) ?? 0;
  const info = await target.stat(layout.leaseGeneration(name, generation), { signal });
  if (info && !(nowMs - info.modifiedMs > LEASE_REST_MS)) {
    throw new DrError('lease-held', `lease "${name}" cannot be read, and whoever wrote it may be at work`, {
      where: `${target.location}/${info.key}`,
      next: 'Run the repair again in 5 minutes.',
    });
  }
  const record: LeaseRecord = {
    version: 1,
    generation: generation + 1,
    holding: randomUUID(),
    holder: await currentHolder(),
    purpose: 'repair: the generation before could not be read',
    acquiredAt: nowMs,
    expiresAt: nowMs,
    released: true,
  };
  const key = layout.leaseGeneration(name, record.generation);
  await target.create(key, Buffer.from(JSON.stringify(record)), { signal });
  return { how: 'written anew' };
}
