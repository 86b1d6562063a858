import { bad, doubtful, type Finding, good } from '../base/finding.ts';
import type { CallOptions, ObjectStore } from './store.ts';

/** Whether what is stored in the vault can be removed: by an attacker with these credentials, or by a slip. */
export async function doctorLocks(store: ObjectStore, options: CallOptions): Promise<Finding[]> {
  const { locks, versions } = store;
  if (locks) return await proveLocks(store, locks, options);
  if (store.location.startsWith('file:')) {
    const next = 'Where that matters keep one vault in a bucket with Object Lock (objectLock).';
    return [good('not immutable: whoever can write to this directory can also delete there', next)];
  }
  if (!(await versions?.areKept(options))) return [];
  const next =
    'Let a lifecycle rule remove old versions (NoncurrentVersionExpiration), or the space that retention frees stays in use.';
  return [good('the bucket keeps versions: what is deleted is hidden, and can be brought back', next)];
}

async function proveLocks(
  { name }: ObjectStore,
  locks: NonNullable<ObjectStore['locks']>,
  options: CallOptions,
): Promise<Finding[]> {
  const { broken, mayBypass, mayExtend, defaultDays } = await locks.prove(options);
  if (broken !== undefined) {
    const next = `Use a bucket that was made with Object Lock, or remove vaults.${name}.objectLock.`;
    return [bad(`not immutable although objectLock is configured: ${broken}`, next)];
  }
  const findings = [good(`immutable (${locks.policy.mode}): the delete of a locked object was refused`)];
  if (mayBypass) {
    findings.push(
      doubtful(
        'these credentials may bypass the lock (s3:BypassGovernanceRetention): whoever steals them can delete everything',
        'Take that right away from them, or use mode: compliance.',
      ),
    );
  }
  if (!mayExtend) {
    findings.push(
      doubtful(
        'these credentials may not make locks longer: what later backups use again can be deleted before they are too old',
        'Allow s3:PutObjectRetention and s3:GetObjectRetention (docs/security.md).',
      ),
    );
  }
  if (defaultDays !== undefined) {
    findings.push(
      doubtful(
        `the bucket locks everything for ${defaultDays} days by default, leases too: every few seconds of each a new object stays`,
        'Remove the default retention of the bucket: dr locks what has to be locked by itself.',
      ),
    );
  }
  return findings;
}
