import { DrError } from '../base/errors.ts';
import type { TrafficShare, TrafficSplit, TrafficState } from './contract.ts';
import { checkPercent } from './record.ts';
import type { Backend } from './route-form.ts';

/** The weights of a division in percent; names that it does not mention get nothing. */
export function weightsFor({ from, to, percent }: TrafficSplit, target: string): ReadonlyMap<string, number> {
  checkPercent(percent, target);
  if (from === to) return new Map([[to, 100]]);
  return new Map([
    [from, 100 - percent],
    [to, percent],
  ]);
}

/** Shares in percent with two places, by name. Without any weight nobody gets anything. */
export function sharesOf(backends: readonly Backend[]): TrafficShare[] {
  const total = backends.reduce((sum, { weight }) => sum + weight, 0);
  return backends
    .map(({ name, weight }) => ({
      value: name,
      percent: total === 0 ? 0 : Math.round((weight * 10_000) / total) / 100,
    }))
    .sort((a, b) => (a.value < b.value ? -1 : 1));
}

/** True when the present weights stand in the wanted proportion: 1 to 0 gives what 100 to 0 gives. */
export function divides(backends: readonly Backend[], wanted: ReadonlyMap<string, number>): boolean {
  const total = backends.reduce((sum, { weight }) => sum + weight, 0);
  const wantedTotal = [...wanted.values()].reduce((sum, weight) => sum + weight, 0);
  if (total === 0) return false;
  return backends.every(({ name, weight }) => weight * wantedTotal === (wanted.get(name) ?? 0) * total);
}

/** The error for weights that are no longer those that a change was to replace. */
export function routeConflict(where: string, expected: TrafficState, found: TrafficState): DrError {
  return new DrError(
    'conflict',
    `somebody else changed the weights: this change was to replace ${show(expected)}, but now they are ${show(found)}`,
    {
      where,
      next: 'Find out who writes this route (GitOps, a rollout controller, another run, a person), stop them, then run the command again.',
    },
  );
}

function show({ shares = [] }: TrafficState): string {
  return shares.map(({ value, percent }) => `${value} ${percent} %`).join(', ') || 'nothing';
}
