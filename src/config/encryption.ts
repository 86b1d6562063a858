import type { Findings } from './problems.ts';
import { wrongRecipient } from './scalars.ts';
import type { Config, KmsConfig } from './types.ts';

/** Who can open the vaults, and whether anybody still can when a region is gone. */
export function checkEncryption(config: Config, findings: Findings): void {
  const { wrong, doubtful } = findings;
  const { encryption } = config;
  if (encryption === 'none') {
    doubtful(['encryption'], 'is "none": whoever can read a vault can read everything in it');
    return;
  }
  const { recipients, kms } = encryption;
  if (recipients.length === 0 && !kms) {
    wrong(['encryption', 'recipients'], 'needs at least one age public key (age-keygen makes one), or "kms" beside it');
  }
  recipients.forEach((recipient, i) => {
    const reason = wrongRecipient(recipient);
    if (reason !== undefined) wrong(['encryption', 'recipients', i], reason);
    else if (recipients.indexOf(recipient) < i) doubtful(['encryption', 'recipients', i], 'stands there twice');
  });
  if (kms) checkKms(config, kms, recipients.length === 0, findings);
}

function checkKms(config: Config, kms: KmsConfig, isOnlyWrap: boolean, { wrong, doubtful }: Findings): void {
  const at = ['encryption', 'kms'];
  const match = /^arn:aws[a-z-]*:kms:([a-z0-9-]+):\d{12}:key\/(mrk-)?[A-Za-z0-9-]{8,}$/.exec(kms.key);
  if (!match) {
    wrong(
      [...at, 'keyId'],
      'is no ARN of a KMS key: write arn:aws:kms:REGION:ACCOUNT:key/ID (an alias may point to another key tomorrow)',
    );
    return;
  }
  const [, region = '', multi] = match;
  const [asked = '', ...replicas] = kms.regions;
  if (asked !== region) wrong([...at, 'region'], `is ${asked}, and the key of this ARN lies in ${region}`);
  if (replicas.length > 0 && multi === undefined) {
    wrong(
      [...at, 'replicas'],
      'needs a multi-Region key (its id begins with mrk-): any other key exists in one region only',
    );
  }
  if (!isOnlyWrap || replicas.length > 0) return;
  // Asked only where a region is lost: then nothing opens the backups if their key went with it.
  const active = Object.hasOwn(config.sites, config.active) ? config.sites[config.active] : undefined;
  const cure = 'add age recipients beside it (identity offline), or a multi-Region key with "replicas"';
  if (active?.region === region) {
    wrong(
      at,
      `is the only thing that opens the backups, and lies in ${region} like the active site: the disaster that takes the site takes the key; ${cure}`,
    );
  } else {
    doubtful(
      at,
      `is the only thing that opens the backups: without ${region} and that account nothing can be restored; ${cure}`,
    );
  }
}
