import { DrError } from '../base/errors.ts';
import { parseAt } from './options.ts';
import { type Written, word, words } from './written.ts';

/** A state of a configuration. */
export type ConfigPoint =
  | { readonly kind: 'latest' }
  /** The newest backup that is not younger. */
  | { readonly kind: 'time'; readonly atMs: number }
  | { readonly kind: 'id'; readonly id: string }
  /** As it is now, at the active site or another one. */
  | { readonly kind: 'live'; readonly site: string | undefined };

export interface ConfigDiffOptions {
  readonly action: 'diff';
  readonly name: string;
  readonly before: ConfigPoint;
  readonly after: ConfigPoint;
  readonly vault: string | undefined;
  /** Only how much of which file. */
  readonly stat: boolean;
  /** A difference decides the exit code. */
  readonly exitCode: boolean;
}

export interface ConfigRestoreOptions {
  readonly action: 'restore';
  readonly name: string;
  /** The cluster of a site, or one that a kubeconfig describes. */
  readonly target:
    | { readonly site: string }
    | { readonly kubeconfig: string | undefined; readonly context: string | undefined };
  readonly point: Exclude<ConfigPoint, { kind: 'live' }>;
  readonly vault: string | undefined;
  /** Show what would change; store nothing. */
  readonly diff: boolean;
  /** Beside those that the configuration names for the site. */
  readonly namespaces: ReadonlyMap<string, string>;
  readonly only: readonly string[];
  /** Default: at a site that stands by what the configuration says for it, else true; anywhere else false. */
  readonly scaleToZero: boolean | undefined;
  readonly servedVersions: boolean;
  readonly forceConflicts: boolean;
  readonly yes: boolean;
  readonly reason: string | undefined;
}

export type ConfigOptions = ConfigDiffOptions | ConfigRestoreOptions;

const backupId = /^\d{8}T\d{9}Z-[0-9a-z]+$/;

/** Throws `usage` for an unknown action, for flags that do not go with it, and for points that are none. */
export function readConfig(written: Written): ConfigOptions {
  const { arguments: given, flags, nowMs } = written;
  const [action, name] = [word(given[0]), word(given[1]) ?? ''];
  const isDiff = action === 'diff';
  if (!isDiff && action !== 'restore')
    throw new DrError('usage', `dr config ${String(action)} is not known`, { next: 'Say diff or restore.' });
  if (name === '')
    throw new DrError('usage', 'the name of the configuration is missing', { next: `Write: dr config ${action} NAME` });
  const foreign = Object.keys(flags).find(
    (flag) => flag !== 'vault' && (isDiff ? !ofDiff.has(flag) : ofDiff.has(flag)),
  );
  if (foreign !== undefined)
    throw new DrError('usage', `dr config ${action} takes no --${dashed(foreign)}`, {
      next: 'Run "dr config --help" to see what belongs to which.',
    });
  const vault = word(flags['vault']);
  if (!isDiff) return readRestore(written, name, vault);
  const [before, after] = [word(given[2]) ?? 'latest', word(given[3]) ?? 'live'];
  return {
    action,
    name,
    before: readPoint(before, nowMs),
    after: readPoint(after, nowMs),
    vault,
    stat: flags['stat'] === true,
    exitCode: flags['exitCode'] === true,
  };
}

const ofDiff = new Set(['stat', 'exitCode']);

function readRestore(
  { arguments: given, flags, nowMs }: Written,
  name: string,
  vault: string | undefined,
): ConfigRestoreOptions {
  if (given[2] !== undefined)
    throw new DrError('usage', 'dr config restore takes one name', { next: 'Name the backup with --backup or --at.' });
  const [site, kubeconfig, context] = ['to', 'cluster', 'context'].map((flag) => word(flags[flag]));
  const isCluster = kubeconfig !== undefined || context !== undefined;
  if ((site !== undefined) === isCluster)
    throw new DrError('usage', `a restore goes to one cluster, and ${isCluster ? 'two are' : 'none is'} named`, {
      next: 'Give --to SITE, or --cluster KUBECONFIG and perhaps --context NAME.',
    });
  const [id, at] = [word(flags['backup']), word(flags['at'])];
  if (id !== undefined && at !== undefined)
    throw new DrError('usage', '--backup and --at exclude each other', { next: 'Give one of them.' });
  const point = readPoint(id ?? at ?? 'latest', nowMs);
  if (point.kind === 'live')
    throw new DrError('usage', 'what is live cannot be restored', { next: 'Name a backup or a time.' });
  const scaleToZero = flags['scaleToZero'];
  return {
    action: 'restore',
    name,
    target: site !== undefined ? { site } : { kubeconfig, context },
    point,
    vault,
    diff: flags['diff'] === true,
    namespaces: new Map(words(flags['namespace']).map(readRename)),
    only: words(flags['only']),
    scaleToZero: typeof scaleToZero === 'boolean' ? scaleToZero : undefined,
    servedVersions: flags['servedVersions'] === true,
    forceConflicts: flags['forceConflicts'] === true,
    yes: flags['yes'] === true,
    reason: word(flags['reason'])?.trim() || undefined,
  };
}

/** `latest`, `live`, `live:SITE`, the id of a backup, or a time. */
function readPoint(text: string, nowMs: number): ConfigPoint {
  const plain = text.trim();
  if (plain === 'live') return { kind: 'live', site: undefined };
  if (plain.startsWith('live:')) return { kind: 'live', site: plain.slice('live:'.length) };
  if (backupId.test(plain)) return { kind: 'id', id: plain };
  const at = parseAt(plain, nowMs);
  if (at.kind !== 'lsn') return at;
  throw new DrError('usage', 'an LSN is a place in a database; a configuration has none', {
    next: 'Name a backup (dr backups NAME), "latest", "live" or a time.',
  });
}

const namespaceName = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/;

function readRename(text: string): [string, string] {
  const [from = '', to = '', ...more] = text.split('=');
  if (namespaceName.test(from) && namespaceName.test(to) && more.length === 0) return [from, to];
  throw new DrError('usage', `--namespace ${text} does not say which becomes which`, {
    next: 'Write: --namespace shop=shop-dr',
  });
}

function dashed(flag: string): string {
  return flag.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}
