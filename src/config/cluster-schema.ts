import { z } from 'zod';
import { absolutePath, flag, someText } from './scalars.ts';

/** How to reach the API server of a cluster. */
export const clusterAccess = z.strictObject({
  kubeconfig: absolutePath()
    .optional()
    .describe('Path of the kubeconfig; default: KUBECONFIG, ~/.kube/config, or the service account of the pod.'),
  context: someText('the name of a context').optional().describe('Default: the current context of the kubeconfig.'),
});

/** The name of a namespace: a DNS label. */
export const namespace = () =>
  z.string({ error: 'must be the name of a namespace' }).regex(/^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/, {
    error: 'must be the name of a namespace: lower-case letters, digits and "-", at most 63',
  });

/** Kinds as people name them to kubectl. */
const kinds = () =>
  z.array(
    z.string({ error: 'must be the name of a kind' }).regex(/^[A-Za-z0-9*]([-A-Za-z0-9.*]*[A-Za-z0-9*])?$/, {
      error: 'must be the name of a kind as kubectl takes it: deployments.apps, configmaps, *.cert-manager.io',
    }),
  );

/** Which objects of the cluster of the active site are a configuration. */
export const clusterObjects = z
  .strictObject({
    namespaces: z
      .array(namespace())
      .min(1, { error: 'must name at least one namespace' })
      .optional()
      .describe('Namespaces whose objects are backed up. Either this or "selector".'),
    selector: someText('a label selector')
      .optional()
      .describe(
        'Label selector of these namespaces: tier=production, kubernetes.io/metadata.name!=kube-system. New namespaces that match are taken in.',
      ),
    clusterObjects: flag()
      .prefault(true)
      .describe(
        'Objects that lie in no namespace too: custom resource definitions, cluster roles, storage classes. False = only the namespaces themselves.',
      ),
    kinds: z
      .strictObject({
        include: kinds().prefault([]).describe('Only these kinds; default: all that the API server has.'),
        exclude: kinds().prefault([]).describe('Kinds that are left out, for example reports.'),
      })
      .prefault({})
      .describe('Kinds by name, as kubectl takes them: deployments.apps, configmaps, *.cert-manager.io.'),
    secrets: flag()
      .prefault(false)
      .describe('True = Secrets too, which needs encryption; otherwise they are left out, and named as left out.'),
  })
  .refine((value) => (value.namespaces === undefined) !== (value.selector === undefined), {
    error: 'needs exactly one of namespaces and selector',
  });

/** How objects are brought up in the cluster of another site. */
export const clusterTarget = z.strictObject({
  namespaces: z
    .record(namespace(), namespace())
    .prefault({})
    .describe('Namespaces that have another name there: { shop: shop-dr }.'),
  scaleToZero: flag()
    .prefault(true)
    .describe('Workloads are restored with 0 replicas; the runbook activates them. False = as they were.'),
});
