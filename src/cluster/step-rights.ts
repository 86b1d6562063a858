import type { Right } from './rights.ts';

/** Rights of the steps that change a cluster, by kind of step. */
export const stepRights: Readonly<Record<string, readonly Right[]>> = {
  'workload.scale': [
    {
      apiGroups: ['apps'],
      resources: ['deployments', 'statefulsets'],
      verbs: ['get', 'patch'],
      scope: 'namespaces',
      why: 'How many copies they want, and the annotation that keeps how many they had, change in one write.',
    },
    {
      apiGroups: ['batch'],
      resources: ['cronjobs'],
      verbs: ['get', 'patch'],
      scope: 'namespaces',
      why: 'CronJobs are suspended and go on.',
    },
    {
      apiGroups: ['apps', 'batch'],
      resources: ['replicasets', 'jobs'],
      verbs: ['list'],
      scope: 'namespaces',
      why: 'Whose pods are whose.',
    },
    {
      apiGroups: [''],
      resources: ['pods'],
      verbs: ['list'],
      scope: 'namespaces',
      why: 'Whether pods are really gone, and what keeps others from being ready.',
    },
  ],
  'workload.rollout': [
    {
      apiGroups: ['apps'],
      resources: ['deployments', 'statefulsets', 'daemonsets'],
      verbs: ['get', 'patch'],
      scope: 'namespaces',
      why: 'Pods are replaced, or the template before comes back.',
    },
    {
      apiGroups: ['apps'],
      resources: ['replicasets', 'controllerrevisions'],
      verbs: ['list'],
      scope: 'namespaces',
      why: 'They keep the earlier templates.',
    },
    {
      apiGroups: [''],
      resources: ['pods'],
      verbs: ['list'],
      scope: 'namespaces',
      why: 'What keeps pods from being ready.',
    },
  ],
  'gitops.pause': [
    {
      apiGroups: ['argoproj.io'],
      resources: ['applications'],
      verbs: ['get', 'patch'],
      scope: 'namespaces',
      why: 'The sync policy is taken out and put back.',
    },
    {
      apiGroups: ['argoproj.io'],
      resources: ['applicationsets'],
      verbs: ['get'],
      scope: 'namespaces',
      why: 'Whether one would put the sync policy back.',
    },
    {
      apiGroups: ['kustomize.toolkit.fluxcd.io', 'helm.toolkit.fluxcd.io'],
      resources: ['kustomizations', 'helmreleases'],
      verbs: ['get', 'patch'],
      scope: 'namespaces',
      why: 'They are suspended and go on.',
    },
  ],
  'gitops.resume': [
    {
      apiGroups: ['argoproj.io'],
      resources: ['applications'],
      verbs: ['get', 'patch'],
      scope: 'namespaces',
      why: 'The sync policy is put back.',
    },
    {
      apiGroups: ['kustomize.toolkit.fluxcd.io', 'helm.toolkit.fluxcd.io'],
      resources: ['kustomizations', 'helmreleases'],
      verbs: ['get', 'patch'],
      scope: 'namespaces',
      why: 'What dr has suspended goes on.',
    },
  ],
  'database.restore': [
    {
      apiGroups: ['apps'],
      resources: ['statefulsets'],
      verbs: ['get', 'patch'],
      scope: 'namespaces',
      why: 'The server of the database is started once its volume is filled; how far that came is written on it.',
    },
    {
      apiGroups: ['batch'],
      resources: ['jobs'],
      verbs: ['get', 'create', 'delete'],
      scope: 'namespaces',
      why: 'The Job that fills the volume; one that failed is made anew.',
    },
    {
      apiGroups: [''],
      resources: ['persistentvolumeclaims'],
      verbs: ['get', 'create'],
      scope: 'namespaces',
      why: 'The claim of the volume, as the StatefulSet would make it.',
    },
    {
      apiGroups: [''],
      resources: ['pods'],
      verbs: ['list'],
      scope: 'namespaces',
      why: 'That no server uses the volume, and how Job and server do.',
    },
  ],
  'database.fence': [
    {
      apiGroups: ['apps'],
      resources: ['statefulsets'],
      verbs: ['get'],
      scope: 'namespaces',
      why: 'Whether the server of a database is wanted at all.',
    },
    {
      apiGroups: [''],
      resources: ['pods'],
      verbs: ['list'],
      scope: 'namespaces',
      why: 'Whether a pod of it is left.',
    },
  ],
};
