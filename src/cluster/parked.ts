/**
 * A workload that dr restored and that waits for the runbook to activate it: it is scaled to 0 (a CronJob is suspended), and its annotation
 * says what it had. Activation sets that again and removes the annotation. Restored Jobs are suspended without annotation: nobody
 * knows whether they have run, so a person decides.
 */

/** On Deployments, StatefulSets and whatever else has a scale: how many copies it had, `"3"`. */
export const replicasAnnotation = 'dr.io/replicas';

/** On CronJobs: `"false"`, as it was not suspended. */
export const suspendAnnotation = 'dr.io/suspend';

/**
 * True for annotations in which steps of a run keep what they did to an object (`dr.io/scaled`, `dr.io/restored`): they are about that one
 * object in that one cluster. What waits, and a paused reconciler's way back (`dr.io/paused`), belong to the object wherever it is.
 */
export function isOfOneRun(annotation: string): boolean {
  return (
    annotation.startsWith('dr.io/') && ![replicasAnnotation, suspendAnnotation, 'dr.io/paused'].includes(annotation)
  );
}
