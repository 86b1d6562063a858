import { z } from 'zod';
import { namespace } from './cluster-schema.ts';
import { name, someText, whole } from './scalars.ts';

/** What runbooks change in the clusters of the sites: workloads that write, and what would put them back. */

/** The name of an object: a DNS subdomain. */
const objectName = () =>
  z.string({ error: 'must be the name of an object' }).regex(/^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$/, {
    error: 'must be the name of an object: lower-case letters, digits, "-" and "."',
  });

const place = {
  namespace: namespace().describe('The namespace it lives in.'),
  name: objectName().optional().describe('What it is called there; default: the name of this entry.'),
  sites: z
    .array(someText('the name of a site'))
    .min(1, { error: 'must name at least one site' })
    .optional()
    .describe('Sites where it is; default: all that have a cluster.'),
};

/** How a Job of dr fills the volume of a database's server. Everything it names lies in the namespace of the StatefulSet. */
const volumeRestore = z.strictObject({
  image: someText('an image').describe('Image of dr for the Job, of the same version as the dr that runs the runbook.'),
  config: objectName().prefault('dr-config').describe('ConfigMap with this configuration under the key dr.yaml.'),
  identity: objectName()
    .optional()
    .describe('Secret with the decryption identity under the key identity.txt; not needed with a KMS key.'),
  environment: objectName()
    .optional()
    .describe(
      'Secret whose keys are environment variables of the Job: credentials, and what the configuration refers to.',
    ),
  serviceAccount: objectName()
    .optional()
    .describe('Service account of the Job, for credentials that a cloud binds to it; default: that of the namespace.'),
});

export const workload = z
  .strictObject({
    kind: z
      .enum(['Deployment', 'StatefulSet', 'DaemonSet', 'CronJob'], {
        error: 'must be Deployment, StatefulSet, DaemonSet or CronJob',
      })
      .describe('Deployment, StatefulSet, DaemonSet or CronJob.'),
    ...place,
    replicas: whole(1, 10_000)
      .optional()
      .describe('How many copies it gets where it has none and no annotation dr.io/replicas says how many it had.'),
    database: name()
      .optional()
      .describe('It is the server of this database; what is not, is an application that may write.'),
    restore: volumeRestore
      .optional()
      .describe(
        'The database is restored into the volume of this StatefulSet, by a Job, where `recover` names the site.',
      ),
  })
  .refine(({ kind, database }) => database === undefined || kind === 'StatefulSet', {
    error: 'is the server of a database, so it must be a StatefulSet',
    path: ['kind'],
  })
  .refine(({ restore, database }) => restore === undefined || database !== undefined, {
    error: 'needs "database": what is restored into the volume',
    path: ['restore'],
  });

export const gitops = z.strictObject({
  kind: z
    .enum(['Application', 'Kustomization', 'HelmRelease'], {
      error: 'must be Application (Argo CD), Kustomization or HelmRelease (Flux)',
    })
    .describe('Application of Argo CD, Kustomization or HelmRelease of Flux.'),
  ...place,
});
