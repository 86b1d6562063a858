/**
 * A workload that dr restored and that waits for the runbook to activate it: it is scaled to 0 (a CronJob is suspended), and its annotation
 * says what it had. Activation sets that again and removes the annotation. Restored Jobs are suspended without annotation: nobody
 * knows whether they have run, so a person decides.
 */

/** On Deployments, StatefulSets and whatever else has a scale: how many copies it had, `"3"`. */
export const replicasAnnotation = 'dr.io/replicas';

/** On CronJobs: `"false"`, as it was not suspended. */
export const suspendAnnotation = 'dr.io/suspend';
