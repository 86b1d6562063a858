import { writeFileSync } from 'node:fs';
import { generateIdentity, identityToRecipient } from 'age-encryption';

// npm run --silent identity -- FILE: makes an age identity where no age program is at hand. Never overwrites one.

const file = process.argv[2];
if (file === undefined) {
  console.error('Usage: npm run --silent identity -- FILE   (the secret goes into FILE, the public key is printed)');
  process.exit(2);
}
const identity = await generateIdentity();
const recipient = await identityToRecipient(identity);
const text = `# created: ${new Date().toISOString()}\n# public key: ${recipient}\n${identity}\n`;
writeFileSync(file, text, { flag: 'wx', mode: 0o600 });
console.log(recipient);
