import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import {
  isManagersPath,
  managersPath,
  objectPath,
  parseObjectPath,
  readManagers,
  readSummary,
  summaryPath,
  toYaml,
} from '../../../src/backup/objects/layout.ts';

describe('paths of objects', () => {
  test('say group, kind, namespace and name', () => {
    expect(objectPath({ group: 'apps', kind: 'Deployment', namespace: 'shop', name: 'orders' })).toBe(
      'namespaces/shop/apps/Deployment/orders.yaml',
    );
    expect(objectPath({ group: '', kind: 'Namespace', name: 'shop' })).toBe('cluster/core/Namespace/shop.yaml');
    expect(objectPath({ group: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'shop:Admin' })).toBe(
      'cluster/rbac.authorization.k8s.io/ClusterRole/shop%3A%41dmin.yaml',
    );
  });

  test('can be read back, whatever the name, and fit every file system', () => {
    const name = fc
      .string({ unit: 'grapheme', minLength: 1, maxLength: 253 })
      .filter((text) => !/[/%\0]/.test(text) && text !== '.' && text !== '..' && text.isWellFormed());
    fc.assert(
      fc.property(name, fc.constantFrom(undefined, 'shop'), (text, namespace) => {
        const key = { group: 'g.example.com', kind: 'Widget', ...(namespace && { namespace }), name: text };
        const path = objectPath(key);
        expect(parseObjectPath(path)).toEqual(key);
        expect(path).toMatch(/^[\w./%+-]+$/);
        expect(path).toBe(path.replace(/\/\.+\//g, '/'));
        for (const part of path.split('/')) expect(part.length).toBeLessThanOrEqual(255);
      }),
    );
    const longest = { group: '', kind: 'ConfigMap', namespace: 'shop', name: 'a'.repeat(253) };
    expect(parseObjectPath(objectPath(longest))).toEqual(longest);
  });

  test('names that differ only in capitals do not meet on file systems that do not tell them apart', () => {
    const paths = ['Admin', 'admin'].map((name) => objectPath({ group: '', kind: 'X', name }).toLowerCase());
    expect(new Set(paths).size).toBe(2);
  });

  test('other files are no objects', () => {
    const path = objectPath({ group: '', kind: 'ConfigMap', namespace: 'shop', name: 'a' });
    expect(parseObjectPath(managersPath(path))).toBeUndefined();
    expect(parseObjectPath(summaryPath)).toBeUndefined();
    expect([path, managersPath(path)].map(isManagersPath)).toEqual([false, true]);
  });
});

test('YAML has sorted keys and means the same to readers of YAML 1.1', () => {
  const value = {
    z: 'on',
    a: ['yes', '1e3', '0o7', '012', 'null', '', 'a: b', 'line\nline\n'],
    m: { y: true, b: 1.5 },
  };
  const text = toYaml(value);
  expect(parse(text, { version: '1.1' })).toEqual(value);
  expect(parse(text, { version: '1.2' })).toEqual(value);
  expect(
    text
      .split('\n')
      .filter((line) => /^\w+:/.test(line))
      .map((line) => line.slice(0, 1)),
  ).toEqual(['a', 'm', 'z']);
});

test('a file that is no summary is named as damaged', () => {
  expect(() => readSummary('format: 2', 'backup x: dr-cluster.yaml')).toThrow(/cannot be read/);
  expect(() => readManagers('{', 'managers/x.yaml')).toThrow(/cannot be read/);
});
