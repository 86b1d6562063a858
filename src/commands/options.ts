import { DrError } from '../base/errors.ts';
import { parseDuration } from '../base/units.ts';
import { parseLsn } from '../postgres/lsn.ts';

/** What the verbs take from the command line, parsed. One interface for each verb; the handlers see nothing else of it. */

export type ValidateOptions = Record<never, never>;

export type DoctorOptions = Record<never, never>;

export interface InitOptions {
  /** URL of the vault, or the path of a directory. */
  readonly from: string;
  readonly endpoint: string | undefined;
  readonly region: string | undefined;
  /** Folder that gets `dr.yaml`. */
  readonly to: string;
}

export interface BackupOptions {
  /** Names of resources; empty = all of the configuration. */
  readonly resources: readonly string[];
  /** Nothing of earlier backups is used again. */
  readonly full: boolean;
  /** The databases named were created anew: another system identifier is no error. */
  readonly acceptNewSystem: boolean;
  /** Nothing is done for resources of which a backup begun since then is there already; milliseconds since 1970. */
  readonly ifNoneSinceMs: number | undefined;
}

export interface BackupsOptions {
  readonly resource: string | undefined;
  /** Only this vault is listed; default: all of them, side by side. */
  readonly vault: string | undefined;
}

export type StatusOptions = Record<never, never>;

/** The moment that a resource is brought back to. */
export type At =
  | { readonly kind: 'latest' }
  | { readonly kind: 'time'; readonly atMs: number }
  | { readonly kind: 'lsn'; readonly lsn: bigint };

export interface RestoreOptions {
  readonly resource: string;
  /** Folder to restore into; must be empty or absent. */
  readonly to: string;
  readonly at: At;
  /** Restore from this vault alone; default: whichever answers. */
  readonly vault: string | undefined;
  /** Databases only: recover to the target with a server and stop it at a consistent, verified state. */
  readonly start: boolean;
  /** Databases only: lay it out for a stock server that fetches its WAL from this folder with `cp`. */
  readonly walTo: string | undefined;
  /** Databases only: begin with this backup; default: the newest from which the target can be reached. */
  readonly backup: string | undefined;
}

export interface VerifyOptions {
  /** Nothing is done for resources whose verification begun since then has succeeded; milliseconds since 1970. */
  readonly ifNoneSinceMs: number | undefined;
  readonly resource: string | undefined;
  readonly vault: string | undefined;
}

export interface RetentionOptions {
  /** False = only show what would go. */
  readonly apply: boolean;
}

export type VaultOptions =
  | { readonly action: 'list' }
  | {
      readonly action: 'check' | 'repair';
      /** Only this vault; default: all of them. */
      readonly name: string | undefined;
      /** Content is compared with its SHA-256; always so by a repair. */
      readonly readData: boolean;
      /** The share of the content that is read, above 0 and up to 1. */
      readonly share: number;
      /** Chooses the share; default: the day. */
      readonly seed: string | undefined;
    }
  /** The vault that begins anew. */
  | { readonly action: 'enrol'; readonly name: string };

export type KeysOptions =
  | { readonly action: 'list' }
  /** `removeOld`: the generations before go too. */
  | { readonly action: 'rotate'; readonly removeOld: boolean };

export type HoldOptions =
  | { readonly action: 'set'; readonly reason: string }
  /** Without id: all that stand. */
  | { readonly action: 'clear'; readonly id: string | undefined }
  | { readonly action: 'list' };

export interface FailoverOptions {
  /** What the person asked for: the mode of a real run. */
  readonly verb: 'failover' | 'switchover' | 'failback';
  /** `real`: it is meant. */
  readonly mode: 'real' | 'plan' | 'drill';
  /** Name of the runbook; default: that of the verb. */
  readonly runbook: string | undefined;
  /** Give up the unfinished run. */
  readonly abandon: boolean;
  /** Site to recover at; default: the site this dr runs at (--site), or the only other one. */
  readonly to: string | undefined;
  readonly at: At;
  /** The person means it: without, nothing is changed. */
  readonly yes: boolean;
  /** Name of the person who accepts that the old primary may still take writes. Recorded in the journal. */
  readonly acceptSplitBrain: string | undefined;
  /** Why, for the journal and the report. */
  readonly reason: string | undefined;
  /** Abandon an unfinished run instead of going on with it. */
  readonly fresh: boolean;
}

export interface RunsOptions {
  readonly id: string | undefined;
  /** Show the report of that run as a document. */
  readonly report: 'markdown' | 'html' | undefined;
  /** A person's answer to a step of that run which waits for approval. */
  readonly answer:
    | {
        readonly step: string;
        readonly kind: 'approve' | 'refuse';
        /** Default: the account. */
        readonly name: string | undefined;
        readonly comment: string | undefined;
      }
    | undefined;
}

export type DaemonOptions = Record<never, never>;

/** `latest`, a time with its zone, `10 minutes ago`, or an LSN such as `0/16B3748`. */
export function parseAt(text: string, nowMs: number): At {
  const plain = text.trim();
  if (plain.toLowerCase() === 'latest') return { kind: 'latest' };
  const lsn = parseLsn(plain);
  if (lsn !== undefined) return { kind: 'lsn', lsn };
  const atMs = parseTime(plain, nowMs);
  if (atMs > nowMs) {
    throw new DrError('usage', `--at ${plain} lies in the future`, { next: 'Give a time that has been, or "latest".' });
  }
  return { kind: 'time', atMs };
}

/** Reads --if-none-since; throws `usage`. */
export function parseSince(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const ms = Date.parse(text);
  if (!Number.isNaN(ms) && /(Z|[+-]\d{2}:?\d{2})$/.test(text)) return ms;
  throw new DrError('usage', `--if-none-since ${text} is no time`, { next: 'Write it like 2026-11-23T05:00:00Z.' });
}

/** A time must say its zone: at 3 a.m. nobody should have to know which one the machine is in. */
function parseTime(text: string, nowMs: number): number {
  const ago = /^(.+?) ago$/i.exec(text);
  if (ago) {
    const length = parseDuration(ago[1] ?? '');
    if (length !== undefined) return nowMs - length;
  }
  const match = /^(\d{4}-\d{2}-\d{2})[T ](\d{2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)?) ?(Z|UTC|[+-]\d{2}(?::?\d{2})?)?$/i.exec(
    text,
  );
  if (match && match[3] === undefined) {
    throw new DrError('usage', `--at ${text} does not say its time zone`, {
      next: `Add it: "${match[1]}T${match[2]}Z" for UTC, or an offset such as "+02:00".`,
    });
  }
  const zone = match?.[3] ?? '';
  const offset = /^(z|utc)$/i.test(zone)
    ? 'Z'
    : zone.replace(/^([+-]\d{2}):?(\d{2})?$/, (_, hours, minutes) => `${hours}:${minutes ?? '00'}`);
  const ms = match ? Date.parse(`${match[1]}T${match[2]}${offset}`) : Number.NaN;
  // Date.parse takes the 31st of February for the 3rd of March.
  if (!match || Number.isNaN(ms) || !isDate(match[1] ?? '')) {
    throw new DrError('usage', `--at ${text} is no point in time`, {
      next: 'Write "latest", a time such as "2026-11-23T05:00:00Z" or "10 minutes ago", or an LSN such as "0/16B3748".',
    });
  }
  return ms;
}

function isDate(day: string): boolean {
  const ms = Date.parse(`${day}T00:00:00Z`);
  return !Number.isNaN(ms) && new Date(ms).toISOString().startsWith(day);
}
