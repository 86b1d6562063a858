import { z } from 'zod';
import { absolutePath, someText } from './scalars.ts';

/** How to reach the API server of a cluster. */
export const clusterAccess = z.strictObject({
  kubeconfig: absolutePath()
    .optional()
    .describe('Path of the kubeconfig; default: KUBECONFIG, ~/.kube/config, or the service account of the pod.'),
  context: someText('the name of a context').optional().describe('Default: the current context of the kubeconfig.'),
});
