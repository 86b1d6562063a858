import { isAbsolute } from 'node:path';
import { fileURLToPath } from 'node:url';
import { DrError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { printableUrl } from '../base/redact.ts';
import type { VaultConfig } from '../config/types.ts';
import { FileStore } from './file-store.ts';
import { MemoryStore } from './memory-store.ts';
import { isObjectKey } from './object-key.ts';
import { S3Store } from './s3-store.ts';
import type { ObjectStore } from './store.ts';

/** Stores in memory by URL, so that all who open the same one in this process share it. */
const memory = new Map<string, MemoryStore>();

/** The store that a vault's URL names: `file:///dir`, `s3://bucket/prefix`, `memory://name`. Nothing is asked of it yet. */
export function openVault(config: VaultConfig, log: Log): ObjectStore {
  const { name, region } = config;
  const scheme = /^([a-z0-9]+):\/\//.exec(config.url)?.[1];
  switch (scheme) {
    case 'file':
      return new FileStore({ name, region, root: directoryOf(config), log });
    case 's3':
      return new S3Store({
        ...config,
        ...bucketOf(config),
        endpoint: endpointOf(config),
        lock: config.objectLock,
        log,
      });
    case 'memory': {
      const store = memory.get(config.url) ?? new MemoryStore({ name, region, location: config.url });
      memory.set(config.url, store);
      return store;
    }
    default:
      throw badUrl(config, 'its url begins neither with s3:// nor with file://');
  }
}

function directoryOf(config: VaultConfig): string {
  let path: string;
  try {
    path = fileURLToPath(config.url);
  } catch {
    throw badUrl(config, 'a file url has three slashes and an absolute path');
  }
  if (!isAbsolute(path) || path === '/') throw badUrl(config, 'a vault needs a directory of its own');
  return path;
}

function bucketOf(config: VaultConfig): { readonly bucket: string; readonly prefix: string } {
  const match = /^s3:\/\/([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:\/(.*))?$/.exec(config.url);
  if (!match) throw badUrl(config, 'the name of its bucket is not one (3 to 63 of a-z, 0-9, "-" and ".")');
  const [, bucket = '', rest = ''] = match;
  const prefix = rest.replace(/\/+$/, '');
  if (prefix !== '' && !isObjectKey(prefix)) {
    throw badUrl(config, 'its prefix may have A-Z, a-z, 0-9, ".", "_", "=" and "-" in segments parted by "/"');
  }
  return { bucket, prefix };
}

function endpointOf(config: VaultConfig): string | undefined {
  if (config.endpoint === undefined) return undefined;
  const next = `Write vaults.${config.name}.endpoint as http(s)://host:port, without credentials.`;
  const url = URL.canParse(config.endpoint) ? new URL(config.endpoint) : undefined;
  if (url && /^https?:$/.test(url.protocol) && url.username === '' && url.password === '') return config.endpoint;
  throw new DrError('config', `the endpoint of vault ${config.name} cannot be used`, {
    where: printableUrl(config.endpoint),
    next,
  });
}

function badUrl(config: VaultConfig, why: string): DrError {
  return new DrError('config', `vault ${config.name} cannot be opened: ${why}`, {
    where: printableUrl(config.url),
    next: `Write vaults.${config.name}.url as s3://bucket/prefix or file:///directory.`,
  });
}
