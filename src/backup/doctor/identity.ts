import { randomBytes } from 'node:crypto';
import { identityToRecipient } from 'age-encryption';
import { DrError, isAbort } from '../../base/errors.ts';
import { bad, doubtful, type Finding, fromError, good } from '../../base/finding.ts';
import { type KeyPolicy, KeyRing } from '../../vault/keys.ts';
import { type KmsKey, kmsEncrypt } from '../../vault/kms.ts';
import type { NewestBackup } from './catalog.ts';

export interface IdentityDoctorOptions {
  readonly policy: KeyPolicy;
  /** What --identity holds; undefined when none was given, an error when the file cannot be used. */
  readonly identities: readonly string[] | undefined | { readonly error: unknown };
  readonly newest: readonly NewestBackup[];
  /** True where this machine verifies or recovers, so that it needs the identity. */
  readonly needed: boolean;
}

/**
 * Whether the identity belongs to the configured recipients and opens the newest data keys, and whether KMS wraps them in each of its
 * regions. The machine that only writes backups needs no identity and no kms:Decrypt, and should have neither.
 */
export async function doctorIdentity(options: IdentityDoctorOptions): Promise<Finding[]> {
  const { policy, identities, newest, needed } = options;
  if (policy === 'none') {
    const next = 'Set encryption.recipients (made with age-keygen), unless the vaults are trusted with the content.';
    return [doubtful('backups are not encrypted, by an explicit "encryption: none"', next)];
  }
  const { recipients, kms } = policy;
  const findings = kms ? await doctorKms(kms) : [];
  if (recipients.length > 0) {
    findings.push(
      good(
        `backups are encrypted for ${recipients.length === 1 ? 'one recipient' : `${recipients.length} recipients`}; writing them needs no identity`,
      ),
    );
  }
  if (identities === undefined) {
    if (kms) return [...findings, ...(await openByKms(newest, kms, needed))];
    const what = 'no identity was given: verification, restore and failover need it';
    const next =
      'Give it with --identity FILE or $DR_IDENTITY_FILE where those are done; keep it off the machine that only writes backups.';
    return [...findings, needed ? doubtful(what, next) : good(what, next)];
  }
  if ('error' in identities) return [...findings, fromError(identities.error)];
  const known = new Set(await Promise.all(identities.map(async (identity) => await recipientOf(identity))));
  const matching = recipients.filter((recipient) => known.has(recipient));
  if (matching.length > 0) findings.push(good(`the identity is that of the recipient ${matching.join(', ')}`));
  else if (recipients.length === 0) {
    const next = 'Leave the identity out, or add its recipient to encryption.recipients and run `dr keys rotate`.';
    findings.push(doubtful('there are no age recipients: the identity opens no new backups, KMS does', next));
  } else {
    findings.push(
      bad(
        'the identity belongs to none of the configured recipients: it will not open new backups',
        `Use the identity of one of ${recipients.join(', ')}, or add its recipient to encryption.recipients and run \`dr keys rotate\`.`,
      ),
    );
  }
  return [...findings, ...(await openNewest(newest, new KeyRing(identities, { kms })))];
}

/** Each region by itself: the replicas are needed when the first one is gone. */
async function doctorKms(kms: KmsKey): Promise<Finding[]> {
  return await Promise.all(
    kms.regions.map(async (region) => {
      try {
        await kmsEncrypt({ ...kms, regions: [region] }, randomBytes(32), 'probe');
        return good(`KMS key ${kms.key} wraps data keys in ${region}`);
      } catch (error) {
        if (isAbort(error)) throw error;
        return fromError(error);
      }
    }),
  );
}

async function openByKms(newest: readonly NewestBackup[], kms: KmsKey, needed: boolean): Promise<Finding[]> {
  const found = await openNewest(newest, new KeyRing([], { kms }), 'denied');
  if (found === 'denied') {
    const what =
      'these credentials may not use KMS to open data keys: verification, restore and failover need kms:Decrypt or an identity';
    const next =
      'Right where backups are only written. Where they are restored, allow kms:Decrypt or give an identity.';
    return [needed ? doubtful(what, next) : good(what, next)];
  }
  return found;
}

/** The public key of an identity; undefined for a form that has none. */
async function recipientOf(identity: string): Promise<string | undefined> {
  return await identityToRecipient(identity).catch(() => undefined);
}

async function openNewest(newest: readonly NewestBackup[], keyRing: KeyRing): Promise<Finding[]>;
async function openNewest(
  newest: readonly NewestBackup[],
  keyRing: KeyRing,
  unless: 'denied',
): Promise<Finding[] | 'denied'>;
async function openNewest(
  newest: readonly NewestBackup[],
  keyRing: KeyRing,
  unless?: 'denied',
): Promise<Finding[] | 'denied'> {
  const findings: Finding[] = [];
  let opened = 0;
  for (const { store, manifest } of newest) {
    const { keyId } = manifest.index;
    if (keyId === undefined) continue;
    try {
      await keyRing.open(store, keyId);
      opened++;
    } catch (error) {
      if (isAbort(error)) throw error;
      if (unless !== undefined && error instanceof DrError && error.kind === unless) return unless;
      const { what, next } = fromError(error);
      findings.push(bad(`backup ${manifest.id} of ${manifest.resource} in vault ${store.name}: ${what}`, next ?? ''));
    }
  }
  if (opened > 0) {
    const what = keyRing.isEmpty ? 'KMS' : 'it';
    findings.push(good(`${what} opens the newest ${opened === 1 ? 'backup' : `${opened} backups`} in the vaults`));
  }
  return findings;
}
