import { cpSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { ClusterObject } from '../../../src/cluster/contract.ts';
import { isJson, type Json } from '../../../src/cluster/json.ts';

/** What a pod says about its container, as a kubelet reads it. */

export function containerOf({ spec }: ClusterObject): Json {
  return listOf(isJson(spec) ? spec['containers'] : [])[0] ?? {};
}

/** Variables of the container, those from Secrets and fields of the pod included. */
export function environmentOf(
  pod: ClusterObject,
  container: Json,
  secrets: readonly ClusterObject[],
): Record<string, string> {
  const { name: podName, namespace = '' } = pod.metadata;
  const secret = (name: unknown): Record<string, string> => {
    const found = secrets.find(({ metadata }) => metadata.name === name && metadata.namespace === namespace);
    const data = isJson(found?.['data']) ? found['data'] : {};
    return Object.fromEntries(
      Object.entries(data).map(([key, value]) => [key, Buffer.from(String(value), 'base64').toString('utf8')]),
    );
  };
  const found: Record<string, string> = {};
  for (const { secretRef } of listOf(container['envFrom'])) {
    if (isJson(secretRef)) Object.assign(found, secret(secretRef['name']));
  }
  for (const { name, value, valueFrom } of listOf(container['env'])) {
    const from = isJson(valueFrom) ? valueFrom : {};
    const field = isJson(from['fieldRef']) ? from['fieldRef']['fieldPath'] : undefined;
    const key = isJson(from['secretKeyRef']) ? from['secretKeyRef'] : undefined;
    if (field === 'metadata.name') found[String(name)] = podName;
    else if (field === 'metadata.namespace') found[String(name)] = namespace;
    else if (key) found[String(name)] = secret(key['name'])[String(key['key'])] ?? '';
    else found[String(name)] = String(value);
  }
  return found;
}

/** Copies what a claim holds to where the container sees it; empty folders are made. Only below `root`. */
export function mountVolumes(
  pod: ClusterObject,
  container: Json,
  claims: ReadonlyMap<string, string>,
  root: string,
): void {
  const volumes = listOf(isJson(pod['spec']) ? pod['spec']['volumes'] : []);
  for (const { name, mountPath, subPath } of listOf(container['volumeMounts'])) {
    const path = String(mountPath);
    if (!path.startsWith(root)) continue;
    mkdirSync(path, { recursive: true });
    const claim = volumes.find((volume) => volume['name'] === name)?.['persistentVolumeClaim'];
    const folder = isJson(claim) ? claims.get(String(claim['claimName'])) : undefined;
    if (folder === undefined) continue;
    cpSync(subPath === undefined ? folder : join(folder, String(subPath)), path, { recursive: true });
  }
}

export function listOf(value: unknown): readonly Json[] {
  return Array.isArray(value) ? value.filter((each) => isJson(each)) : [];
}
