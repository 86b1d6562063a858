import { z } from 'zod';
import { formatDuration } from '../base/units.ts';
import { worstIntervalMs } from './cadence.ts';
import type { Findings } from './problems.ts';
import { duration } from './scalars.ts';
import type { ConfigFile } from './schema.ts';
import type { Config, ObjectLockConfig } from './types.ts';

/** How long the objects of a vault cannot be removed by anybody. */

const DAY_MS = 86_400_000;
/** AWS takes no longer lock. */
const MOST_MS = 100 * 365 * DAY_MS;

export const objectLock = z
  .strictObject({
    mode: z
      .enum(['governance', 'compliance'], { error: 'must be governance or compliance' })
      .prefault('governance')
      .describe(
        'governance: whoever has the right s3:BypassGovernanceRetention may remove objects all the same; compliance: nobody, not even the owner of the account.',
      ),
    for: z
      .union([z.literal('retention'), duration()], {
        error: 'must be a length of time like 30 days, or the word: retention',
      })
      .prefault('retention')
      .describe('How long; "retention" = as long as retention keeps what belongs to the resource.'),
  })
  .optional()
  .describe('S3 Object Lock: what is stored cannot be removed before its time. The bucket needs Object Lock.');

/** Lock periods from the retention of each resource: until the next backup has taken the place of the one that grows too old, and a day. */
export function buildObjectLock(
  lock: z.output<typeof objectLock>,
  file: Pick<ConfigFile, 'databases' | 'data' | 'configuration'>,
): ObjectLockConfig | undefined {
  if (lock === undefined) return undefined;
  const { mode, for: length } = lock;
  if (length !== 'retention') return { mode, byResource: {}, otherwiseMs: length };
  const resources = [file.databases, file.data, file.configuration].flatMap((section) => Object.entries(section));
  const byResource = Object.fromEntries(
    resources.map(([name, { retention, schedule }]) => [name, retention.age + worstIntervalMs(schedule) + DAY_MS]),
  );
  return { mode, byResource, otherwiseMs: Math.max(DAY_MS, ...Object.values(byResource)) };
}

/** Locks that do not hold what they promise, or hold more than was meant. */
export function checkObjectLock(config: Config, { wrong, doubtful }: Findings): void {
  const resources = [config.databases, config.data, config.configuration, config.objects].flatMap((section) =>
    Object.values(section),
  );
  for (const { name, url, objectLock: lock } of Object.values(config.vaults)) {
    if (!lock) continue;
    const path = ['vaults', name, 'objectLock'];
    if (!url.startsWith('s3:')) {
      wrong(path, 'is for buckets: whoever can write to a directory can also delete there');
      continue;
    }
    if (lock.otherwiseMs > MOST_MS) wrong([...path, 'for'], 'is longer than the 100 years that S3 takes');
    const short = resources.find(
      ({ name: resource, retentionMs }) => (lock.byResource[resource] ?? lock.otherwiseMs) < retentionMs,
    );
    if (short) {
      doubtful(
        [...path, 'for'],
        `is shorter than the ${formatDuration(short.retentionMs)} that ${short.name} is kept: the rest of that time its backups can be deleted; write "retention"`,
      );
    }
  }
}
