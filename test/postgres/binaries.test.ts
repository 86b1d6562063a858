import { chmodSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { expect, test } from 'vitest';
import { DrError } from '../../src/base/errors.ts';
import { findPostgres } from '../../src/postgres/binaries.ts';
import { postgresMajors, usableNpmPostgres } from '../harness/npm-postgres.ts';
import { tempDir } from '../harness/temp.ts';

const all = postgresMajors.map(usableNpmPostgres);

test.each(postgresMajors)('of several configured directories the one with PostgreSQL %s is taken', async (major) => {
  const found = await findPostgres(major, all);
  expect(found).toMatchObject({ bin: usableNpmPostgres(major), major });
  expect(found.version).toMatch(new RegExp(`^${major}\\.`));
});

test('an installation directory does as well as its bin, and the search path is the last resort', async () => {
  const bin = usableNpmPostgres(16);
  expect((await findPostgres(16, [dirname(bin)])).bin).toBe(bin);
  expect((await findPostgres(16, ['/nowhere'], [bin])).major).toBe(16);
});

test('a missing version is an error that says what was seen, where, and what to do', async () => {
  const directory = await tempDir();
  writeFileSync(join(directory, 'postgres'), '#!/bin/sh\necho "not a server"\n');
  chmodSync(join(directory, 'postgres'), 0o755);
  const error = await findPostgres(14, [usableNpmPostgres(17), directory]).catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(DrError);
  expect(error).toMatchObject({
    kind: 'local',
    message: expect.stringMatching(/PostgreSQL 14 is needed.*is 17\..*does not run: unexpected answer/s),
    where: expect.stringContaining('/usr/lib/postgresql/14/bin'),
    next: expect.stringContaining('postgresql.binaries'),
  });
});
