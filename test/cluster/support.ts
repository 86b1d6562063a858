import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadSettings } from '../../src/cluster/kubeconfig.ts';
import type { ClusterSettings } from '../../src/cluster/settings.ts';
import type { KubernetesServer } from '../harness/kubernetes/server.ts';

/** Settings from a real kubeconfig file, which is removed again. */
export function settingsFor(
  server: KubernetesServer,
  user: Readonly<Record<string, unknown>> = { token: 'admin-token' },
): ClusterSettings {
  const folder = mkdtempSync(join(tmpdir(), 'dr-kubeconfig-'));
  try {
    const kubeconfig = join(folder, 'config');
    writeFileSync(kubeconfig, server.kubeconfig('', user));
    return loadSettings({ kubeconfig, env: {} });
  } finally {
    rmSync(folder, { recursive: true });
  }
}
