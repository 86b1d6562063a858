import { generateIdentity, identityToRecipient } from 'age-encryption';
import type { BackupContext } from '../../src/backup/context.ts';
import { systemClock } from '../../src/base/clock.ts';
import { silentLog } from '../../src/base/log.ts';
import { KeyRing } from '../../src/vault/keys.ts';
import { MemoryStore } from '../../src/vault/memory-store.ts';
import { SealPool } from '../../src/vault/seal-pool.ts';
import type { ObjectStore } from '../../src/vault/store.ts';

/** Two vaults in memory, keys for them, and everything else that a backup needs. */
export async function backupWorld(stores: readonly ObjectStore[] = [memoryVault('east'), memoryVault('west')]) {
  const identity = await generateIdentity();
  const recipient = await identityToRecipient(identity);
  const pool = new SealPool(2);
  const context: BackupContext = {
    stores,
    keyPolicy: { recipients: [recipient] },
    pool,
    site: 'east',
    tool: 'dr test',
    compressionLevel: 3,
    partBytes: 4 * 1024 * 1024,
    clock: systemClock,
    log: silentLog,
  };
  return { context, stores, pool, identity, keyRing: new KeyRing([identity]) };
}

export function memoryVault(name: string): MemoryStore {
  return new MemoryStore({ name, region: `region-${name}` });
}
