import { z } from 'zod';
import { DrError } from '../base/errors.ts';

/** What `dr backup` and `dr verify` say with --json, as far as the daemon needs it of a Job. */

const text = z.string();
const error = z.object({
  kind: text.optional(),
  message: text,
  where: text.optional(),
  next: text.optional(),
});

const backup = z.object({
  resource: text,
  id: text.optional(),
  unchanged: z.boolean().default(false),
  vaults: z.array(text).default([]),
  lost: z.array(z.object({ vault: text, reason: text })).default([]),
  logicalBytes: z.number().default(0),
  storedBytes: z.number().default(0),
  reusedBytes: z.number().optional(),
  notes: z.array(z.unknown()).default([]),
  error: error.optional(),
});

export interface BackupOutcome {
  readonly id: string;
  readonly unchanged: boolean;
  readonly vaults: readonly string[];
  readonly lost: ReadonlyArray<{ readonly vault: string }>;
  readonly logicalBytes: number;
  readonly storedBytes: number;
  readonly reusedBytes?: number | undefined;
  readonly notes: readonly unknown[];
}

/** Throws what the command failed with. */
export function readBackupOutcome(result: unknown, resource: string): BackupOutcome {
  const said = z.object({ backups: z.array(backup) }).safeParse(result).data;
  const of = said?.backups.find((each) => each.resource === resource);
  if (of?.error) throw failureOf(of.error);
  if (of?.id === undefined)
    throw new DrError('internal', `the Job has not said what became of the backup of ${resource}`);
  return { ...of, id: of.id };
}

const verification = z.object({
  resource: text,
  ok: z.boolean(),
  failure: text.optional(),
  backupId: text,
  vault: text,
  recoveredTo: text.optional(),
  bytes: z.number().default(0),
  restoreMs: z.number().default(0),
});

export type VerificationOutcome = z.output<typeof verification>;

/** The report of one resource; `already` where it was verified before. */
export function readVerificationOutcome(result: unknown, resource: string): VerificationOutcome {
  const said = z.object({ verifications: z.array(verification) }).safeParse(result).data;
  const of = said?.verifications.find((each) => each.resource === resource);
  if (of) return of;
  throw new DrError('internal', `the Job has not said what became of the verification of ${resource}`);
}

/** The error of a JSON document, as the command threw it. */
export function failureOf(said: unknown): DrError {
  const { kind, message, where, next } = error.safeParse(said).data ?? { message: 'it has not said why it failed' };
  return new DrError(isKind(kind) ? kind : 'internal', message, {
    ...(where !== undefined && { where }),
    ...(next !== undefined && { next }),
  });
}

const kinds = [
  'usage',
  'config',
  'objective-broken',
  'lease-held',
  'not-found',
  'corrupt',
  'wrong-key',
  'unreachable',
  'denied',
  'refused',
  'conflict',
  'local',
  'check-failed',
  'interrupted',
] as const;

function isKind(kind: unknown): kind is (typeof kinds)[number] {
  return kinds.some((each) => each === kind);
}
