import { expect, test } from 'vitest';
import { environmentReferences, runbooksOf } from '../../src/config/references.ts';

test('the variables of a file, each once, in its order; comments, keys and $${ do not count', () => {
  const text = [
    'url: "${DATABASE_URL}" # ${COMMENT}',
    'list: [ "${HOST:-db}:${PORT:-5432}", "${HOST}", "$${LITERAL}" ]',
    '"${KEY}": plain',
    'again: "${PORT:-1}"',
  ].join('\n');
  expect(environmentReferences(text)).toEqual([
    { name: 'DATABASE_URL', required: true },
    { name: 'HOST', required: true },
    { name: 'PORT', required: false },
  ]);
  expect(environmentReferences('')).toEqual([]);
});

test('the folder of the runbooks as written', () => {
  expect(runbooksOf('version: 1\nrunbooks: ./books\n')).toBe('./books');
  expect(runbooksOf('version: 1\n')).toBeUndefined();
  expect(runbooksOf('')).toBeUndefined();
  expect(runbooksOf('- a list\n')).toBeUndefined();
});
