/** Stores objects in the vault given as first argument until it is killed; says `w<number>` after each. */
import { FileStore } from '../../src/vault/file-store.ts';

const [root = '', round = '0'] = process.argv.slice(2);
const store = new FileStore({ name: 'east', region: 'r1', root });
for (let i = 0; ; i++) {
  const key = `objects/${round}/${i % 3}/${i}`;
  await store.create(key, Buffer.alloc(3_000_000, key));
  process.stdout.write(`w${i}\n`);
}
