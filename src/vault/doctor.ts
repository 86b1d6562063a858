import { randomBytes } from 'node:crypto';
import { access, constants } from 'node:fs/promises';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { DrError, isAbort } from '../base/errors.ts';
import { bad, clockFinding, doubtful, type Finding, fromError, good } from '../base/finding.ts';
import { doctorLocks } from './doctor-locks.ts';
import { checkVault, firstStranger, probeCreateOnly, type VaultMarker } from './enrol.ts';
import type { ObjectStore } from './store.ts';

/** S3 tells times in whole seconds. */
const STORE_CLOCK_GRAIN_MS = 1000;
const newVault = 'The first `dr backup` or `dr daemon` makes it.';

export interface VaultDoctorOptions {
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds since 1970. */
  readonly now: () => number;
}

export interface VaultExamination {
  readonly findings: readonly Finding[];
  /** Undefined when there is no vault yet, or none that answers. */
  readonly marker: VaultMarker | undefined;
}

/**
 * Looks whether a vault answers, is one, honours create-only writes and lets these credentials store, list, read and delete.
 * Writes nothing but objects below `probes/`, which it removes. Never throws except when aborted.
 */
export async function doctorVault(store: ObjectStore, options: VaultDoctorOptions): Promise<VaultExamination> {
  const findings: Finding[] = [];
  let marker: VaultMarker | undefined;
  try {
    marker = await checkVault(store, options);
    findings.push(good(`${store.location} answers and is a vault of format ${marker.format} (${marker.id})`));
  } catch (error) {
    if (isAbort(error) || options.signal?.aborted) throw error;
    const absent = await judgeAbsence(store, error);
    findings.push(absent.finding);
    if (!absent.probe) return { findings, marker };
  }
  try {
    await probeCreateOnly(store, options);
    findings.push(good('create-only writes are honoured, one after the other and at once'));
    findings.push(...(await probeRights(store, options)));
    findings.push(...(await doctorLocks(store, options)));
  } catch (error) {
    if (isAbort(error) || options.signal?.aborted) throw error;
    findings.push(fromError(error));
  }
  return { findings, marker };
}

/** A place without a vault is where every vault begins; whether it was one before, the other vaults know. */
async function judgeAbsence(store: ObjectStore, error: unknown): Promise<{ finding: Finding; probe: boolean }> {
  const kind = error instanceof DrError ? error.kind : undefined;
  // A bucket that does not exist is not found either: the probes say so.
  if (kind === 'not-found') {
    const stranger = await firstStranger(store).catch(() => undefined);
    if (stranger !== undefined) {
      const finding = bad(
        `${store.location} holds other things (${stranger}) and no vault: nothing is written there`,
        `Give vault ${store.name} an empty prefix of its own.`,
      );
      return { finding, probe: false };
    }
    return { finding: doubtful(`there is no vault at ${store.location} yet`, newVault), probe: true };
  }
  if (kind === 'unreachable' && (await canBeMade(store.location))) {
    const next = `${newVault} If it should be a mounted volume, mount it first.`;
    return { finding: doubtful(`the directory ${store.location} does not exist yet`, next), probe: false };
  }
  return { finding: fromError(error), probe: false };
}

/** True for a directory that is not there and whose nearest parent lets us make it. */
async function canBeMade(location: string): Promise<boolean> {
  if (!location.startsWith('file://')) return false;
  let path: string;
  try {
    path = fileURLToPath(location);
  } catch {
    return false;
  }
  const there = async (at: string, mode: number) =>
    await access(at, mode).then(
      () => true,
      () => false,
    );
  if (await there(path, constants.F_OK)) return false;
  let parent = dirname(path);
  while (parent !== dirname(parent) && !(await there(parent, constants.F_OK))) parent = dirname(parent);
  return await there(parent, constants.W_OK | constants.X_OK);
}

/** Stores, finds, reads and deletes one small object; the time that the store gives it shows the store's clock. */
async function probeRights(store: ObjectStore, options: VaultDoctorOptions): Promise<Finding[]> {
  const { now, signal } = options;
  const key = `probes/${randomBytes(12).toString('hex')}`;
  const content = Buffer.from('a probe of dr doctor, to be deleted at once\n');
  const beforeMs = now();
  await store.create(key, content, { signal });
  const afterMs = now();
  const findings: Finding[] = [];
  const attempt = async (doing: string, work: () => Promise<Finding | undefined>) => {
    try {
      findings.push((await work()) ?? good(`objects can be ${doing}`));
    } catch (error) {
      if (isAbort(error) || signal?.aborted) throw error;
      findings.push(fromError(error));
    }
  };
  await attempt('listed', async () => {
    for await (const info of store.list(key, { signal })) if (info.key === key) return undefined;
    return bad(
      `a listing of ${store.location} does not show an object that was just stored`,
      'Use a store whose listings are consistent: without that, backups cannot be found and retention is not safe.',
    );
  });
  await attempt('read, whole and in part', async () => {
    const whole = await store.read(key, undefined, { signal });
    const part = await store.read(key, { offset: 2, length: 5 }, { signal });
    if (whole.equals(content) && part.equals(content.subarray(2, 7))) return undefined;
    return bad(`${store.location} gives back other bytes than were stored`, 'Use another store, and find out why.');
  });
  await attempt('', async () => {
    const info = await store.stat(key, { signal });
    if (!info) return bad(`${store.location} does not find an object that was just stored`, 'Use another store.');
    return clockFinding('the store', { theirsMs: info.modifiedMs, beforeMs, afterMs, grainMs: STORE_CLOCK_GRAIN_MS });
  });
  try {
    await store.delete([key], { signal });
    findings.push(good('objects can be deleted'));
  } catch (error) {
    if (isAbort(error) || signal?.aborted) throw error;
    // A store that keeps everything (Object Lock, an account without the right to delete) is a good vault that only grows.
    const refused = fromError(error, 'warn');
    const next = 'Retention cannot free space here: intended for an immutable copy, else allow s3:DeleteObject.';
    findings.push({ ...refused, next: refused.next ? `${next} ${refused.next}` : next });
  }
  return findings;
}
