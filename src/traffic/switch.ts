import { z } from 'zod';
import { DrError } from '../base/errors.ts';
import type { SwitchConfig } from '../config/types.ts';
import { FileSwitch } from './switch-file.ts';
import { S3Switch } from './switch-s3.ts';

/**
 * What a health check reads: the site that gets the traffic. The health check looks for `"site":"west"` in the text, so `site` comes
 * first and no space is added. Format 1.
 */
const documentSchema = z.object({
  site: z.string(),
  format: z.literal(1),
  /** Grows by one with every change. */
  generation: z.int().nonnegative(),
  changedAt: z.iso.datetime(),
});
export type SwitchDocument = z.infer<typeof documentSchema>;

/** What lies at the place of a document. */
export interface SwitchContent {
  readonly text: string;
  /** Changes with the content: what a write checks that it replaces. */
  readonly tag: string;
}

/** One place that health checks read. Errors are `DrError`: `unreachable`, `denied`, `local`. */
export interface HealthSwitch {
  /** `s3://bucket/key` or the path. */
  readonly where: string;
  /** Undefined when nothing has been written there yet. */
  read(signal?: AbortSignal): Promise<SwitchContent | undefined>;
  /** Replaces exactly the content with this tag, or, with undefined, nothing. `changed`: something else is there, and stays. */
  write(text: string, replaces: string | undefined, signal?: AbortSignal): Promise<'written' | 'changed'>;
  /** Throws what a write would throw for lack of rights, and changes nothing. */
  checkWrite(signal?: AbortSignal): Promise<void>;
  close(): void;
}

export function openSwitch(config: SwitchConfig): HealthSwitch {
  return config.url.startsWith('file:') ? new FileSwitch(config) : new S3Switch(config);
}

export function writeDocument(document: SwitchDocument): string {
  const { site, format, generation, changedAt } = document;
  return `${JSON.stringify({ site, format, generation, changedAt })}\n`;
}

/** Throws `corrupt` for anything but a document of this format. */
export function readDocument(content: SwitchContent, where: string): SwitchDocument {
  try {
    return documentSchema.parse(JSON.parse(content.text));
  } catch (cause) {
    throw new DrError('corrupt', 'this is no switch of dr that this version can read', {
      where,
      next: 'Find out who wrote it; remove it when nothing else needs it: without it the primary site gets the traffic.',
      cause,
    });
  }
}
