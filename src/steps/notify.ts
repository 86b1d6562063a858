import { z } from 'zod';
import { DrError, messageOf } from '../base/errors.ts';
import { suggestion } from '../config/problems.ts';
import type { Config, NotificationConfig } from '../config/types.ts';
import { defineStep } from './contract.ts';
import { type Message, sendMessage, shownDestination } from './messages.ts';

export const notify = defineStep({
  name: 'notify',
  summary: 'Tell people: a Slack-compatible webhook, PagerDuty, or any webhook of the configuration',
  effect: 'changes',
  modes: ['failover', 'switchover', 'failback', 'drill'],
  inDrill: 'The text begins with [drill], and PagerDuty gets it as information only.',
  params: z.object({
    to: z.string().describe('Name of the notification in the configuration (`notifications`).'),
    text: z.string().min(1).max(3000).describe('What is told.'),
    severity: z
      .enum(['info', 'warning', 'error', 'critical'])
      .default('info')
      .describe('How grave it is, for services that want to know.'),
  }),
  outputs: z.object({ sent: z.boolean().describe('True: the service has taken it.') }),
  timeoutMs: 60_000,
  check(config, { to }) {
    if (to === undefined) return [];
    try {
      destination(config, to);
      return [];
    } catch (error) {
      return [messageOf(error)];
    }
  },
  async plan(context, { to, text = 'a text that the run will know' }) {
    if (to === undefined) return { target: 'a notification', present: '', will: ['send a message'], problems: [] };
    return {
      target: shownDestination(destination(context.world.config, to)),
      present: '',
      will: [`send "${text}"`],
      problems: [],
    };
  },
  // No `done`: told twice does less harm than not told, and the key lets a service join the two.
  async run(context, { to, text, severity }) {
    const { run, each, world, signal, note } = context;
    const drill = run.mode === 'drill';
    const message: Message = {
      text: drill ? `[drill] ${text}` : text,
      severity: drill ? 'info' : severity,
      key: `dr ${run.id} ${to} ${each ?? ''}`.trim(),
      run: { id: run.id, mode: run.mode, site: run.site, from: run.from },
    };
    const where = destination(world.config, to);
    await sendMessage(where, message, signal);
    note(`told ${shownDestination(where)}: ${message.text}`);
    return { sent: true };
  },
});

function destination({ notifications, source }: Config, name: string): NotificationConfig {
  const found = Object.hasOwn(notifications, name) ? notifications[name] : undefined;
  if (found) return found;
  throw new DrError(
    'config',
    `the configuration has no notification "${name}"${suggestion(name, Object.keys(notifications))}`,
    {
      where: source.path,
      next: 'Add it under "notifications", or correct the name in the runbook.',
    },
  );
}
