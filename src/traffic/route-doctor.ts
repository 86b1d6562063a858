import { DrError } from '../base/errors.ts';
import type { LastWritten, TrafficFinding, TrafficState } from './contract.ts';
import { rivalFinding } from './rivals.ts';
import type { Backend, RouteForm } from './route-form.ts';
import { list, ownManager, part, type RouteObject, type RouteRef } from './route-objects.ts';

/** What the examination of a route needs. */
export interface RoutePatient {
  readonly form: RouteForm;
  readonly ref: RouteRef;
  /** Backend by site. */
  readonly endpoints: Readonly<Record<string, string>>;
  readonly wrote: LastWritten | undefined;
  look(): Promise<RouteLook>;
  /** Asks the server whether dr may change the route, without changing it. */
  tryOut(look: RouteLook): Promise<void>;
}

export interface RouteLook {
  readonly object: RouteObject;
  readonly index: number;
  readonly backends: readonly Backend[];
  readonly state: TrafficState;
}

/** Managers of fields that write again and again by themselves. */
const writers: ReadonlyArray<{ readonly pattern: RegExp; readonly name: string; readonly next: string }> = [
  {
    pattern: /^argocd/,
    name: 'Argo CD',
    next: 'Let its Application ignore the weights (ignoreDifferences with RespectIgnoreDifferences), or pause it in the fence stage of the runbook.',
  },
  {
    pattern: /^(kustomize-controller|helm-controller|flux)/,
    name: 'Flux',
    next: 'Let it leave the route alone (kustomize.toolkit.fluxcd.io/reconcile: disabled, or driftDetection.ignore), or suspend it in the fence stage of the runbook.',
  },
  {
    pattern: /^(flagger|rollouts-controller|argo-rollouts)/,
    name: 'a rollout controller',
    next: 'Let dr and the rollout have routes of their own: both write the same weights.',
  },
];

/** Marks that GitOps tools leave on what they manage. */
const marks: ReadonlyArray<{ readonly key: string; readonly manager: string }> = [
  { key: 'argocd.argoproj.io/tracking-id', manager: 'argocd' },
  { key: 'argocd.argoproj.io/instance', manager: 'argocd' },
  { key: 'kustomize.toolkit.fluxcd.io/name', manager: 'kustomize-controller' },
  { key: 'helm.toolkit.fluxcd.io/name', manager: 'helm-controller' },
];

export async function routeDoctor(patient: RoutePatient): Promise<readonly TrafficFinding[]> {
  const { form, endpoints, wrote } = patient;
  let look: RouteLook;
  try {
    look = await patient.look();
  } catch (error) {
    return [asFinding(error)];
  }
  const { object, state } = look;
  return [
    pointsTo(state),
    ...siteFindings(look, endpoints),
    await permission(patient, look),
    ...acceptanceFindings(form, object),
    ...ownerFindings(form, object),
    // Backends are compared as they are written, as addresses are.
    ...rivalFinding('A', state, wrote),
  ];
}

/** An error that tells something about the route; anything else passes through. */
function asFinding(error: unknown): TrafficFinding {
  if (!(error instanceof DrError) || error.kind === 'interrupted' || error.kind === 'internal') throw error;
  return {
    ok: false,
    what: `${error.message}${error.where ? ` (${error.where})` : ''}`,
    ...(error.next && { next: error.next }),
  };
}

function pointsTo({ name, values, shares = [] }: TrafficState): TrafficFinding {
  if (values.length === 0) {
    const next = 'Give the backend of the active site a weight.';
    return { ok: false, what: `no backend of ${name} has any weight: its clients get errors`, next };
  }
  const getting = shares.filter(({ percent }) => percent > 0);
  const shown = getting.length > 1 ? getting.map(({ value, percent }) => `${value} (${percent} %)`) : values;
  return { ok: true, what: `${name} points to ${shown.join(', ')}` };
}

function siteFindings({ backends }: RouteLook, endpoints: Readonly<Record<string, string>>): TrafficFinding[] {
  const missing = Object.entries(endpoints).filter(([, name]) => !backends.some((backend) => backend.name === name));
  const foreign = backends.filter(({ name }) => !Object.values(endpoints).includes(name));
  return [
    ...missing.map(([site, name]): TrafficFinding => {
      return {
        ok: false,
        what: `the rule has no backend ${name} of ${site}: traffic cannot be redirected there`,
        next: 'Add it to the rule with weight 0, or correct the endpoints of this traffic entry.',
      };
    }),
    ...foreign
      .filter(({ weight }) => weight > 0)
      .map(({ name }): TrafficFinding => {
        return {
          ok: false,
          severity: 'warning',
          what: `the backend ${name} gets traffic and belongs to no site: a redirect takes it away`,
          next: 'Add it to the endpoints of this traffic entry, or give it a rule of its own.',
        };
      }),
  ];
}

async function permission({ form, tryOut }: RoutePatient, look: RouteLook): Promise<TrafficFinding> {
  try {
    await tryOut(look);
    return { ok: true, what: `the cluster lets dr change the ${form.objectKind}` };
  } catch (error) {
    return asFinding(error);
  }
}

function acceptanceFindings(form: RouteForm, object: RouteObject): TrafficFinding[] {
  const all = form.acceptance(object);
  const hasParents = list(part(object['spec'])['parentRefs']).length > 0;
  if (all.length === 0 && hasParents) {
    return [
      {
        ok: false,
        severity: 'warning',
        what: 'no gateway says that it carries the route out',
        next: 'Check that the gateway of its parentRefs is there and that a controller runs it.',
      },
    ];
  }
  return all.map(({ by, lacks }): TrafficFinding => {
    if (lacks === undefined) return { ok: true, what: `${by} carries the route out` };
    const next = `Look at the status of the ${form.objectKind} and the log of the gateway controller.`;
    return { ok: false, what: `${by} does not carry the route out: ${lacks}`, next };
  });
}

/** Who else writes the weights. Lists of rules are owned as a whole, so their owner owns every weight in them. */
function ownerFindings(form: RouteForm, object: RouteObject): TrafficFinding[] {
  const { metadata } = object;
  const field = `spec.${form.field}`;
  const owners = (metadata.managedFields ?? []).filter(
    ({ manager, subresource, fieldsV1 }) =>
      manager !== ownManager &&
      subresource === undefined &&
      part(part(fieldsV1)['f:spec'])[`f:${form.field}`] !== undefined,
  );
  const marked = marks
    .filter(({ key }) => metadata.annotations?.[key] !== undefined || metadata.labels?.[key] !== undefined)
    .map(({ manager, key }) => ({ manager, why: `its mark ${key} is on the route` }));
  const found = [...owners.map(({ manager }) => ({ manager, why: `${manager} owns ${field}` })), ...marked];
  const findings: TrafficFinding[] = [];
  for (const { pattern, name, next } of writers) {
    const whys = found.filter(({ manager }) => pattern.test(manager)).map(({ why }) => why);
    if (whys.length === 0) continue;
    findings.push({
      ok: false,
      severity: 'warning',
      what: `${name} manages the weights (${whys.join(', ')}): it puts back what it knows`,
      next,
    });
  }
  if (findings.length > 0) return findings;
  return owners.map(({ manager, operation, time }): TrafficFinding => {
    const when = time === undefined ? '' : ` on ${time}`;
    const how = operation === 'Apply' ? 'applied' : 'wrote';
    // Somebody who only acts when a person does; a controller of a name that is not known here looks the same.
    return { ok: true, what: `${manager} ${how} ${field}${when}; doing so again would undo a redirect` };
  });
}
