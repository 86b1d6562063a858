import { type ConfigOptions, readConfig } from './config-options.ts';
import { storage, type Verb, vaultFlag, verb } from './verb.ts';

/** What is done with a configuration beside backing it up. */
export const configVerb: Verb = verb<ConfigOptions>({
  name: 'config',
  summary: 'show what changed in a configuration and who did it; bring objects back into a cluster',
  description:
    'diff: two states as git shows them, files and objects of a cluster alike; each is the id of a backup, a time, latest, live (now, at the active site) or live:SITE. Without A and B, what changed since the latest backup. Of objects it names the field manager and when. Values of Secrets are never shown. restore: applies the objects of a backup to a cluster (server-side apply, field manager "dr"), in the order of their dependencies, each with its own result; what fails does not stop the rest. It never deletes, and says what is there and not in the backup. Cut at any point, the same command goes on; done twice, it changes nothing. With --diff it stores nothing and shows what would change, and what is missing there: definitions, versions, storage classes, Secrets, quotas. Folders are restored by "dr restore".',
  arguments: [
    ['<action>', 'diff or restore'],
    ['<name>', 'name of the configuration'],
    ['[a]', 'diff: the state before (default: latest)'],
    ['[b]', 'diff: the state after (default: live)'],
  ],
  flags: [
    vaultFlag,
    ['--stat', 'diff: only how many lines of which file'],
    ['--exit-code', 'diff: end with 14 where anything differs'],
    ['--to <site>', 'restore: into the cluster of this site, with what the configuration says for it (recover.SITE)'],
    ['--cluster <kubeconfig>', 'restore: into another cluster'],
    ['--context <name>', 'restore: of that kubeconfig (default: its current one)'],
    ['--backup <id>', 'restore: this backup (default: the latest)'],
    ['--at <when>', 'restore: the newest backup up to this time, as "2026-11-23T05:00:00Z" or "10 minutes ago"'],
    ['--diff', 'restore: show what would change and what is missing; store nothing'],
    ['--namespace <from=to...>', 'restore: a namespace gets another name, and what refers to it too'],
    ['--only <kind/namespace/name...>', 'restore: only these, with * for any: "Deployment/shop/*", "ClusterRole/*"'],
    [
      '--scale-to-zero',
      'restore: workloads that are not there yet wait with 0 replicas until a runbook activates them (default at a site that stands by)',
    ],
    ['--no-scale-to-zero', 'restore: they run as they did'],
    ['--served-versions', 'restore: apply kinds that are served in another version only in that one'],
    ['--force-conflicts', 'restore: take over fields that belong to other managers'],
    ['--yes', 'restore: without asking'],
    ['--reason <text>', 'restore: why, for the result and the log'],
  ],
  examples: [
    'dr config diff cluster',
    'dr config diff cluster "1 hour ago" latest --stat',
    'dr config restore cluster --to west --diff',
    'dr config restore cluster --to west --namespace shop=shop-dr --yes --reason "drill of the 23rd"',
    'dr config restore cluster --cluster new.kubeconfig --only "ConfigMap/shop/*" "Deployment/shop/orders" --yes',
  ],
  failures: ['not-found', ...storage, 'refused', 'conflict', 'local', 'check-failed'],
  read: readConfig,
  load: () => import('./config.ts'),
});
