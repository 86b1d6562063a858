// Makes the bill of materials of the image of what npm says: `npm sbom --package-lock-only --sbom-format=cyclonedx | node scripts/sbom.mjs`.
// What differs from run to run goes (serial number, time), the parts are sorted, and Node comes in; with --system, every Debian
// package too. So the same sources give the same bytes. Packages only of the development are left out (npm's own --omit=dev leaves
// out what is used for both); with --installed FOLDER, whatever is not there.
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

const bill = JSON.parse(readFileSync(0, 'utf8'));
const epoch = process.env.SOURCE_DATE_EPOCH;

const node = {
  'bom-ref': 'node',
  type: 'platform',
  name: 'node',
  version: process.versions.node,
  purl: `pkg:generic/node@${process.versions.node}`,
  cpe: `cpe:2.3:a:nodejs:node.js:${process.versions.node}:*:*:*:lts:*:*:*`,
  licenses: [{ license: { id: 'MIT' } }],
};
const { values: options } = parseArgs({ options: { system: { type: 'boolean' }, installed: { type: 'string' } } });
const wanted = options.installed === undefined ? inProduction() : installedIn(join(options.installed, 'node_modules'));
const packages = bill.components.filter((each) => wanted.has(each['bom-ref']));
const components = [...packages, node, ...(options.system ? debianPackages() : [])];
const known = new Set([bill.metadata.component['bom-ref'], ...components.map((each) => each['bom-ref'])]);
const dependencies = (bill.dependencies ?? [])
  .filter(({ ref }) => known.has(ref))
  .map(({ ref, dependsOn = [] }) => ({ ref, dependsOn: dependsOn.filter((each) => known.has(each)) }));
const byName = (a, b) => (a['bom-ref'] < b['bom-ref'] ? -1 : Number(a['bom-ref'] > b['bom-ref']));

// npm calls it after the folder that it lies in.
const metadata = { ...bill.metadata, component: { ...bill.metadata.component, type: 'application', name: 'dr' } };
delete metadata.timestamp;
if (epoch) metadata.timestamp = new Date(Number(epoch) * 1000).toISOString();
const { serialNumber: _random, ...rest } = bill;
const result = {
  ...rest,
  metadata,
  components: components.sort(byName),
  dependencies: dependencies.sort((a, b) => (a.ref < b.ref ? -1 : Number(a.ref > b.ref))),
};
process.stdout.write(`${JSON.stringify(result, undefined, 1)}\n`);

function debianPackages() {
  const distribution = Object.fromEntries(
    readFileSync('/etc/os-release', 'utf8')
      .split('\n')
      .flatMap((line) => {
        const [key, value] = line.split('=');
        return value === undefined ? [] : [[key, value.replaceAll('"', '')]];
      }),
  );
  const format =
    '${db:Status-Abbrev}\t${binary:Package}\t${Version}\t${Architecture}\t${source:Package}\t${source:Version}\n';
  const lines = execFileSync('dpkg-query', ['--show', `--showformat=${format}`], { encoding: 'utf8' }).split('\n');
  return lines.flatMap((line) => {
    const [status, name, version, architecture, source, sourceVersion] = line.split('\t');
    if (!status?.startsWith('ii')) return [];
    const plain = name.replace(/:.*$/, '');
    const purl = `pkg:deb/debian/${encodeURIComponent(plain)}@${encodeURIComponent(version)}?arch=${architecture}&distro=debian-${distribution.VERSION_ID}`;
    const upstream =
      source !== plain || sourceVersion !== version
        ? `&upstream=${encodeURIComponent(`${source}@${sourceVersion}`)}`
        : '';
    return [{ 'bom-ref': purl, type: 'library', name: plain, version, purl: purl + upstream }];
  });
}

/** `name@version` of every package below a folder node_modules. */
function installedIn(modules) {
  const found = new Set();
  if (!existsSync(modules)) return found;
  for (const entry of readdirSync(modules)) {
    const folder = join(modules, entry);
    const folders = entry.startsWith('@') ? readdirSync(folder).map((name) => join(folder, name)) : [folder];
    for (const each of folders.filter((path) => existsSync(join(path, 'package.json')))) {
      const { name, version } = JSON.parse(readFileSync(join(each, 'package.json'), 'utf8'));
      found.add(`${name}@${version}`);
      for (const nested of installedIn(join(each, 'node_modules'))) found.add(nested);
    }
  }
  return found;
}

/** `name@version` of every package that the lock file has for production. */
function inProduction() {
  const { packages: locked } = JSON.parse(readFileSync('package-lock.json', 'utf8'));
  const found = Object.entries(locked).filter(([path, { dev, devOptional }]) => path !== '' && !dev && !devOptional);
  return new Set(found.map(([path, { name, version }]) => `${name ?? path.split('node_modules/').at(-1)}@${version}`));
}
