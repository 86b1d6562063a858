import { isJson } from '../../src/cluster/json.ts';

type Json = Readonly<Record<string, unknown>>;

const part = (value: unknown): Json => (isJson(value) ? value : {});
const list = (value: unknown): Json[] => (Array.isArray(value) ? value.map(part) : []);

/** Volume types that Pod Security "restricted" allows. */
const volumeTypes = new Set([
  'configMap',
  'csi',
  'downwardAPI',
  'emptyDir',
  'ephemeral',
  'persistentVolumeClaim',
  'projected',
  'secret',
]);

/**
 * What of a pod's spec breaks Pod Security "restricted" (kubernetes.io/docs/concepts/security/pod-security-standards, v1.32), and
 * what dr promises beyond: user 1000, a read-only root file system.
 */
export function podFaults(spec: Json): string[] {
  const faults: string[] = [];
  const must = (holds: boolean, what: string) => {
    if (!holds) faults.push(what);
  };
  const security = part(spec['securityContext']);
  for (const name of ['hostNetwork', 'hostPID', 'hostIPC', 'hostUsers']) must(spec[name] === undefined, name);
  must(security['runAsNonRoot'] === true, 'runAsNonRoot');
  must(security['runAsUser'] === 1000 && security['runAsGroup'] === 1000, 'runAsUser');
  must(part(security['seccompProfile'])['type'] === 'RuntimeDefault', 'seccompProfile');
  must(security['sysctls'] === undefined && security['seLinuxOptions'] === undefined, 'sysctls, seLinuxOptions');
  for (const volume of list(spec['volumes'])) {
    const types = Object.keys(volume).filter((key) => key !== 'name');
    must(types.length === 1 && types.every((type) => volumeTypes.has(type)), `volume ${String(volume['name'])}`);
  }
  const containers = ['containers', 'initContainers', 'ephemeralContainers'].flatMap((name) => list(spec[name]));
  must(containers.length > 0, 'no containers');
  for (const container of containers) {
    const own = part(container['securityContext']);
    const capabilities = part(own['capabilities']);
    must(own['allowPrivilegeEscalation'] === false, 'allowPrivilegeEscalation');
    must(own['readOnlyRootFilesystem'] === true, 'readOnlyRootFilesystem');
    must(own['runAsNonRoot'] === true, 'runAsNonRoot of the container');
    must(own['privileged'] === undefined && own['procMount'] === undefined, 'privileged');
    must(own['runAsUser'] === undefined, 'runAsUser of the container');
    must(own['seccompProfile'] === undefined, 'seccompProfile of the container');
    must(JSON.stringify(capabilities) === '{"drop":["ALL"]}', 'capabilities');
    must(
      list(container['ports']).every(({ hostPort }) => hostPort === undefined),
      'hostPort',
    );
    const { requests, limits } = part(container['resources']);
    must(isJson(requests) && isJson(limits) && limits['memory'] !== undefined, 'resources');
  }
  return faults;
}
