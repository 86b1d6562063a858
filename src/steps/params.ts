import { z } from 'zod';
import { parseDuration } from '../base/units.ts';

/** A length of time as people write it (`30s`, `5m`); the value is milliseconds. */
export const duration = (fallback: string) =>
  z
    .string()
    .refine((text) => (parseDuration(text) ?? 0) > 0, 'write a length of time, for example 30s, 5m')
    .default(fallback)
    .transform((text) => parseDuration(text) ?? 0);
