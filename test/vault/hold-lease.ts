/** Holds a lease in the file vault given as first argument until it is killed or loses it; says what happens. */
import { FileStore } from '../../src/vault/file-store.ts';
import { acquireLease } from '../../src/vault/lease.ts';

const [root = '', ttlMs = '30000'] = process.argv.slice(2);
const store = new FileStore({ name: 'west', region: 'r', root });
const lease = await acquireLease(store, 'runs', { purpose: 'a test', ttlMs: Number(ttlMs) });
process.stdout.write(`held ${lease.generation}\n`);
const alive = setInterval(() => {}, 1000); // Renewal alone does not keep a process alive.
lease.signal.addEventListener('abort', async () => {
  clearInterval(alive);
  const check = await lease.stillHeld().then(
    () => 'still held',
    (error: Error) => error.message,
  );
  process.stdout.write(`lost: ${check}\n`);
});
