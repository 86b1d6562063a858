import { describe, expect, test } from 'vitest';
import { readConfig } from '../../src/commands/config-options.ts';

const nowMs = Date.parse('2026-11-23T06:00:00Z');

function read(args: readonly string[], flags: Readonly<Record<string, unknown>> = {}) {
  return readConfig({ arguments: [args[0], args[1], args[2], args[3]], flags, nowMs });
}

describe('dr config diff', () => {
  test('without states: what changed since the latest backup', () => {
    expect(read(['diff', 'cluster'])).toMatchObject({
      before: { kind: 'latest' },
      after: { kind: 'live', site: undefined },
    });
  });

  test('states: ids, times, latest, live, live at a site', () => {
    const id = '20261123T050102123Z-3f9a1c';
    expect(read(['diff', 'cluster', id, 'live:west'])).toMatchObject({
      before: { kind: 'id', id },
      after: { kind: 'live', site: 'west' },
    });
    expect(read(['diff', 'cluster', '1 hour ago', 'latest'])).toMatchObject({
      before: { kind: 'time', atMs: nowMs - 3_600_000 },
      after: { kind: 'latest' },
    });
  });

  test.each([
    [['diff', 'cluster', 'yesterday'], {}, 'is no point in time'],
    [['diff', 'cluster', '0/16B3748'], {}, 'an LSN is a place in a database'],
    [['diff', 'cluster'], { yes: true }, 'takes no --yes'],
    [['diff', 'cluster'], { scaleToZero: true }, 'takes no --scale-to-zero'],
    [['diff'], {}, 'the name of the configuration is missing'],
    [['undo', 'cluster'], {}, 'is not known'],
  ])('%j %j is refused', (args, flags, reason) => {
    expect(() => read(args, flags)).toThrow(reason);
  });
});

describe('dr config restore', () => {
  test('everything that can be said', () => {
    const flags = {
      cluster: '/kube',
      context: 'west',
      at: '10 minutes ago',
      namespace: ['shop=shop-dr', 'a=b'],
      only: ['ConfigMap'],
      scaleToZero: false,
      yes: true,
      reason: ' why ',
    };
    expect(read(['restore', 'cluster'], flags)).toEqual({
      action: 'restore',
      name: 'cluster',
      target: { kubeconfig: '/kube', context: 'west' },
      point: { kind: 'time', atMs: nowMs - 600_000 },
      vault: undefined,
      diff: false,
      namespaces: new Map([
        ['shop', 'shop-dr'],
        ['a', 'b'],
      ]),
      only: ['ConfigMap'],
      scaleToZero: false,
      servedVersions: false,
      forceConflicts: false,
      yes: true,
      reason: 'why',
    });
    expect(read(['restore', 'cluster'], { to: 'west' })).toMatchObject({
      scaleToZero: undefined,
      point: { kind: 'latest' },
    });
  });

  test.each([
    [['restore', 'cluster'], {}, 'none is named'],
    [['restore', 'cluster'], { to: 'west', cluster: '/kube' }, 'two are named'],
    [['restore', 'cluster'], { to: 'west', backup: '20261123T050102123Z-3f9a1c', at: 'latest' }, 'exclude each other'],
    [['restore', 'cluster'], { to: 'west', at: 'live' }, 'cannot be restored'],
    [['restore', 'cluster'], { to: 'west', namespace: ['shop'] }, 'which becomes which'],
    [['restore', 'cluster'], { to: 'west', namespace: ['shop=Shop_1'] }, 'which becomes which'],
    [['restore', 'cluster'], { to: 'west', stat: true }, 'takes no --stat'],
    [['restore', 'cluster', 'latest'], { to: 'west' }, 'takes one name'],
  ])('%j %j is refused', (args, flags, reason) => {
    expect(() => read(args, flags)).toThrow(reason);
  });
});
