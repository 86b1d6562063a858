import { identityToRecipient } from 'age-encryption';
import { isAbort } from '../../base/errors.ts';
import { bad, doubtful, type Finding, fromError, good } from '../../base/finding.ts';
import type { Log } from '../../base/log.ts';
import { type KeyPolicy, KeyRing } from '../../vault/keys.ts';
import type { ObjectStore } from '../../vault/store.ts';
import { newestBackup } from '../catalog.ts';
import type { Manifest } from '../manifest.ts';

/** The newest backup of a resource in one vault. */
export interface NewestBackup {
  readonly store: ObjectStore;
  readonly manifest: Manifest;
}

/** The newest backup of each resource in each vault that answers; `problems` are manifests that cannot be read. */
export async function newestBackups(
  stores: readonly ObjectStore[],
  resources: readonly string[],
  log: Log,
): Promise<{ readonly newest: readonly NewestBackup[]; readonly problems: readonly Finding[] }> {
  const newest: NewestBackup[] = [];
  const problems: Finding[] = [];
  await Promise.all(
    stores.flatMap((store) =>
      resources.map(async (resource) => {
        try {
          const manifest = await newestBackup(store, resource);
          if (manifest) newest.push({ store, manifest });
        } catch (error) {
          if (isAbort(error)) throw error;
          log.debug({ vault: store.name, resource, error }, 'the newest backup cannot be read');
          problems.push(fromError(error));
        }
      }),
    ),
  );
  return { newest, problems };
}

/** The newest backup of a resource over all vaults. */
export function newestOf(newest: readonly NewestBackup[], resource: string): Manifest | undefined {
  return newest
    .map(({ manifest }) => manifest)
    .filter((manifest) => manifest.resource === resource)
    .sort((a, b) => (a.id < b.id ? 1 : -1))[0];
}

export interface IdentityDoctorOptions {
  readonly policy: KeyPolicy;
  /** What --identity holds; undefined when none was given, an error when the file cannot be used. */
  readonly identities: readonly string[] | undefined | { readonly error: unknown };
  readonly newest: readonly NewestBackup[];
  /** True where this machine verifies or recovers, so that it needs the identity. */
  readonly needed: boolean;
}

/**
 * Whether the identity belongs to the configured recipients and opens the newest data keys. The machine that only writes backups
 * needs none and should have none.
 */
export async function doctorIdentity(options: IdentityDoctorOptions): Promise<Finding[]> {
  const { policy, identities, newest, needed } = options;
  if (policy === 'none') {
    const next = 'Set encryption.recipients (made with age-keygen), unless the vaults are trusted with the content.';
    return [doubtful('backups are not encrypted, by an explicit "encryption: none"', next)];
  }
  const findings = [
    good(
      `backups are encrypted for ${policy.recipients.length === 1 ? 'one recipient' : `${policy.recipients.length} recipients`}; writing them needs no identity`,
    ),
  ];
  if (identities === undefined) {
    const what = 'no identity was given: verification, restore and failover need it';
    const next =
      'Give it with --identity FILE or $DR_IDENTITY_FILE where those are done; keep it off the machine that only writes backups.';
    return [...findings, needed ? doubtful(what, next) : good(what, next)];
  }
  if ('error' in identities) return [...findings, fromError(identities.error)];
  const known = new Set(await Promise.all(identities.map(async (identity) => await recipientOf(identity))));
  const matching = policy.recipients.filter((recipient) => known.has(recipient));
  if (matching.length > 0) findings.push(good(`the identity is that of the recipient ${matching.join(', ')}`));
  else {
    findings.push(
      bad(
        'the identity belongs to none of the configured recipients: it will not open new backups',
        `Use the identity of one of ${policy.recipients.join(', ')}, or add its recipient to encryption.recipients.`,
      ),
    );
  }
  return [...findings, ...(await openNewest(newest, new KeyRing(identities)))];
}

/** The public key of an identity; undefined for a form that has none. */
async function recipientOf(identity: string): Promise<string | undefined> {
  return await identityToRecipient(identity).catch(() => undefined);
}

async function openNewest(newest: readonly NewestBackup[], keyRing: KeyRing): Promise<Finding[]> {
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
      const { what, next } = fromError(error);
      findings.push(bad(`backup ${manifest.id} of ${manifest.resource} in vault ${store.name}: ${what}`, next ?? ''));
    }
  }
  if (opened > 0)
    findings.push(good(`it opens the newest ${opened === 1 ? 'backup' : `${opened} backups`} in the vaults`));
  return findings;
}
