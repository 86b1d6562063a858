import fc from 'fast-check';
import { expect, test } from 'vitest';
import { parse } from 'yaml';
import { yamlText } from '../../../src/backup/objects/yaml-text.ts';

const words = fc.constantFrom(
  ...[
    'on',
    'No',
    'y',
    '~',
    'null',
    '1e3',
    '012',
    '0x1f',
    '1:30',
    '.inf',
    '2026-11-23',
    '<<',
    '=',
    '- a',
    'a: b',
    'a #b',
  ],
  ...['#', '', ' ', 'a ', ' a', "it's", '"', '\\', '%', '@x', '`', '|', '>', '{a}', '[b]', '&c', '*d', '!e', '?', '-'],
  ...[
    'a\nb',
    'a\n',
    '\na',
    ' a\nb',
    'a\n\n\n',
    '\n',
    'a\n  b\n c',
    '  \na',
    'a\n \nb',
    'a\tb\n',
    '\ta\nb',
    'a\r\nb',
    '---\na',
    'a\n---\nb',
  ],
  ...['\u0085', '\u2028x', '\ufeff', '\u007f', '\ud83d\ude00\nb', '#a\nb', 'a:\nb'],
);
const text = fc.oneof(
  words,
  fc.string({ unit: 'grapheme' }),
  fc.string({ unit: 'binary' }).filter((each) => each.isWellFormed()),
);
const { tree } = fc.letrec((tie) => ({
  tree: fc.oneof(
    { depthSize: 'small' },
    text,
    fc.integer(),
    fc.double({ noNaN: true, noDefaultInfinity: true }).map((each) => (Object.is(each, -0) ? 0 : each)),
    fc.boolean(),
    fc.constant(null),
    fc.array(tie('tree'), { maxLength: 4 }),
    // `__proto__` is no key that JSON of an API server has.
    fc.dictionary(
      text.filter((key) => key !== '__proto__' && key !== '<<'),
      tie('tree'),
      { maxKeys: 4, noNullPrototype: true },
    ),
  ),
}));

test('means what it was made of, to every reader of YAML', () => {
  fc.assert(
    fc.property(tree, (value) => {
      const written = yamlText(value);
      for (const version of ['1.1', '1.2'] as const) expect(parse(written, { version })).toEqual(value);
    }),
    { numRuns: 2000 },
  );
});

test('looks as people write it', () => {
  const value = {
    spec: { containers: [{ name: 'a', args: ['-v', 'x y'], image: 'registry:5000/a' }], empty: {}, none: [] },
    kind: 'X',
    data: { script: '#!/bin/sh\necho\n', off: 'off', number: '10' },
    left: undefined,
  };
  expect(yamlText(value)).toBe(`data:
  number: "10"
  "off": "off"
  script: |
    #!/bin/sh
    echo
kind: X
spec:
  containers:
    - args:
        - "-v"
        - x y
      image: registry:5000/a
      name: a
  empty: {}
  none: []
`);
});

test('a key of any length', () => {
  const value = { ['k'.repeat(3000)]: { a: 1 }, b: ['x'] };
  expect(parse(yamlText(value))).toEqual(value);
});
