import { readFile } from 'node:fs/promises';
import { describe, expect, test } from 'vitest';
import { generatedFiles } from '../../scripts/generated-files.ts';
import { fileSchema } from '../../src/config/schema.ts';
import { knownKeys } from '../../src/config/shape.ts';

describe('what is generated from the code', () => {
  test.each([...generatedFiles()])('%s is up to date (npm run generate)', async (path, wanted) => {
    expect(await readFile(new URL(`../../${path}`, import.meta.url), 'utf8')).toBe(wanted);
  });

  test('the schema refuses unknown keys at every level, and describes every key', () => {
    const schema: unknown = JSON.parse(generatedFiles().get('config/dr.schema.json') ?? '');
    const undescribed: string[] = [];
    const open: string[] = [];
    const walk = (node: unknown, path: string): void => {
      if (typeof node !== 'object' || node === null) return;
      if ('properties' in node) {
        if (!('additionalProperties' in node) || node.additionalProperties !== false) open.push(path);
        for (const [key, value] of Object.entries(node.properties as object)) {
          if (typeof value !== 'object' || !('description' in value)) undescribed.push(`${path}.${key}`);
        }
      }
      for (const [key, value] of Object.entries(node)) walk(value, `${path}/${key}`);
    };
    walk(schema, '');
    expect(undescribed).toEqual([]);
    expect(open).toEqual([]);
  });

  test('the keys of every level are known to the suggestions', () => {
    expect(knownKeys(fileSchema, ['databases', 'orders', 'wal'])).toEqual(['enabled', 'flushEvery', 'slot', 'durable']);
    expect(knownKeys(fileSchema, ['encryption'])).toEqual(['recipients', 'kms']);
    expect(knownKeys(fileSchema, ['validation', 'http', 0])).toContain('contains');
    expect(knownKeys(fileSchema, ['nowhere', 'at', 'all'])).toEqual([]);
  });
});
