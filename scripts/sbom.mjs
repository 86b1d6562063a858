// Makes the bill of materials of the image of what `npm sbom` says: `npm sbom --sbom-format=cyclonedx --omit=dev | node scripts/sbom.mjs`.
// What differs from run to run goes (serial number, time), the parts are sorted, and Node comes in; with --system, every Debian
// package too. So the same sources give the same bytes.
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

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
const components = [...bill.components, node, ...(process.argv.includes('--system') ? debianPackages() : [])];
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
  dependencies: (bill.dependencies ?? []).sort((a, b) => (a.ref < b.ref ? -1 : Number(a.ref > b.ref))),
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
