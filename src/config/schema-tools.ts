import { z } from 'zod';
import { absolutePath, duration, flag, httpUrl, name, someText } from './scalars.ts';

/** The part of the configuration file that runbooks use beside resources: programs that they may start, and people that they tell. */

const argument = () => z.string({ error: 'must be text' });

export const command = z
  .strictObject({
    run: z
      .tuple([absolutePath()], argument())
      .describe(
        'The program by its absolute path, and its arguments. No shell. `{name}` in an argument is filled in by the runbook (`arguments`).',
      ),
    check: z
      .tuple([absolutePath()], argument())
      .optional()
      .describe(
        'A program that says whether the effect is there already (exit code 0 = yes), asked after a run was interrupted.',
      ),
    repeatable: flag()
      .prefault(false)
      .describe(
        'True = doing it twice is harmless. Either this or "check" is needed: a run may be killed in the middle.',
      ),
    drill: flag().prefault(false).describe('True = it is started in drills too; otherwise a drill leaves it out.'),
    timeout: duration().prefault('5m').describe('It is killed when it takes longer.'),
    workingDirectory: absolutePath().optional().describe('Where it runs; default: /.'),
    environment: z
      .record(z.string().regex(/^[A-Za-z_][A-Za-z0-9_]*$/, { error: 'is no name of a variable' }), argument())
      .prefault({})
      .describe(
        'Environment variables beside PATH, HOME, LANG and the DR_* facts of the run. Write secrets as ${NAME}.',
      ),
  })
  .refine((value) => value.repeatable || value.check !== undefined, {
    error: 'needs "check", or "repeatable: true": a run may be killed while it is under way',
  });

export const notification = z
  .strictObject({
    slack: httpUrl()
      .optional()
      .describe('Incoming webhook of Slack, or of a service that takes the same. Write it as ${NAME}.'),
    pagerduty: z
      .strictObject({
        routingKey: someText('the routing key').describe(
          'Integration key of the service (Events API v2). Write it as ${NAME}.',
        ),
        url: httpUrl()
          .prefault('https://events.pagerduty.com/v2/enqueue')
          .describe('Where events are sent; for the EU: https://events.eu.pagerduty.com/v2/enqueue.'),
      })
      .optional()
      .describe('PagerDuty.'),
    webhook: z
      .strictObject({
        url: httpUrl().describe('Receives a POST with a JSON document.'),
        headers: z.record(z.string(), z.string()).prefault({}).describe('Further headers. Write secrets as ${NAME}.'),
      })
      .optional()
      .describe('Anything else.'),
  })
  .refine((value) => Object.values(value).filter((way) => way !== undefined).length === 1, {
    error: 'needs exactly one of slack, pagerduty and webhook',
  });

export const commands = z
  .record(name(), command)
  .prefault({})
  .describe('Programs that runbooks may start (step command.run), by name. Nothing else is ever started.');

export const notifications = z
  .record(name(), notification)
  .prefault({})
  .describe('Where runbooks send messages (step notify), by name.');
