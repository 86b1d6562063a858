/**
 * A workload that dr restored and that waits for the runbook to activate it: it is scaled to 0 (a CronJob or Job is suspended), and its
 * annotation says what it had. Activation sets that again and removes the annotation.
 */

/** On Deployments, StatefulSets and whatever else has a scale: how many copies it had, `"3"`. */
export const replicasAnnotation = 'dr.io/replicas';

/** On CronJobs and Jobs: whether it was suspended, `"false"`; one without it is left alone. */
export const suspendAnnotation = 'dr.io/suspend';
