import { listKeys } from '../backup/keys/list.ts';
import { rotateKeys } from '../backup/keys/rotate.ts';
import { surveyKeys, type VaultKeys } from '../backup/keys/survey.ts';
import { DrError, type ErrorKind, isAbort, messageOf } from '../base/errors.ts';
import { reportError } from '../report/error.ts';
import { renderKeyList, renderRotation } from '../report/keys.ts';
import type { CommandContext, CommandResult } from './context.ts';
import type { KeysOptions } from './options.ts';
import { openWorld } from './world.ts';

/** `dr keys list | rotate`. */
export async function run(context: CommandContext, options: KeysOptions): Promise<CommandResult> {
  return options.action === 'list' ? await list(context) : await rotate(context, options.removeOld);
}

async function list(context: CommandContext): Promise<CommandResult> {
  const { signal, onProgress } = context;
  await using world = await openWorld(context, { vaults: 'read' });
  const vaults: VaultKeys[] = [];
  const away: Array<{ vault: string; reason: string }> = [];
  let failure: unknown;
  for (const store of world.stores) {
    try {
      vaults.push(await surveyKeys(store, { onProgress, signal }));
    } catch (error) {
      if (signal.aborted || isAbort(error) || !(error instanceof DrError)) throw error;
      failure ??= error;
      away.push({ vault: store.name, reason: messageOf(error) });
    }
  }
  if (vaults.length === 0 && failure !== undefined) throw failure;
  const found = listKeys(vaults, world.config.encryption);
  const { damaged, ...rest } = found;
  const bad: ErrorKind | undefined =
    found.unopened.length > 0 ? 'wrong-key' : damaged.length > 0 ? 'corrupt' : undefined;
  return {
    data: { ...rest, damaged: damaged.map(({ error, ...where }) => ({ ...where, error: reportError(error) })), away },
    text: renderKeyList(found, away),
    ...(bad === undefined ? {} : { failure: bad }),
  };
}

async function rotate(context: CommandContext, removeOld: boolean): Promise<CommandResult> {
  const { config } = await context.loadConfig();
  if (config.encryption === 'none') {
    throw new DrError('refused', 'there is nobody to wrap data keys for: the configuration says "encryption: none"', {
      where: config.source.path,
      next: 'Write encryption.recipients first. Backups that were stored readable stay readable: take new ones.',
    });
  }
  const identities = (await context.loadIdentities()) ?? [];
  const { kms } = config.encryption;
  if (identities.length === 0 && !kms) {
    throw new DrError('wrong-key', 'rotating keys needs an identity that opens them now', {
      where: config.source.path,
      next: 'Give it with --identity FILE; beside it, in the same file, the new one proves the new wraps.',
    });
  }
  await using world = await openWorld(context, { vaults: 'write' });
  const { clock, log, onProgress, signal } = context;
  const result = await rotateKeys({
    stores: world.stores,
    policy: config.encryption,
    openers: { identities, kms },
    removeOld,
    clock,
    log,
    onProgress,
    signal,
  });
  const failure = result.failed[0]?.error.kind ?? (result.away.length > 0 ? 'unreachable' : undefined);
  return {
    data: { ...result, failed: result.failed.map(({ id, error }) => ({ id, error: reportError(error) })) },
    text: renderRotation(result, removeOld),
    ...(failure !== undefined ? { failure } : result.kept.length > 0 ? { failure: 'refused' as const } : {}),
  };
}
