import { z } from 'zod';
import type { ClusterObject } from '../../cluster/contract.ts';
import { recoveredDatabaseSchema, recoveryTargetSchema } from '../ports.ts';

/** On the StatefulSet: what a run has put into its volume, and how far it came. */
export const restoredAnnotation = 'dr.io/restored';

const markSchema = z.object({
  run: z.string(),
  vault: z.string(),
  backup: z.string(),
  at: recoveryTargetSchema,
  /** `filling` and `catching-up` are written before the Job is made; `promoting` before the server is told. */
  state: z.enum(['filling', 'filled', 'recovered', 'catching-up', 'promoting', 'promoted']),
  /** How often it was caught up; each time has a Job of its own. */
  round: z.number().default(0),
  recovered: recoveredDatabaseSchema.optional(),
  timeline: z.number().optional(),
});

export type VolumeMark = z.infer<typeof markSchema>;

export function markOf({ metadata }: ClusterObject): VolumeMark | undefined {
  try {
    const parsed = markSchema.safeParse(JSON.parse(metadata.annotations?.[restoredAnnotation] ?? 'null'));
    return parsed.success ? parsed.data : undefined;
  } catch {
    return undefined;
  }
}
