import http from 'node:http';
import https from 'node:https';
import { DrError, messageOf } from '../base/errors.ts';
import { redact } from '../base/redact.ts';
import type { NotificationConfig } from '../config/types.ts';

/** A service that does not answer must not hold up a recovery, milliseconds. */
const TIMEOUT_MS = 10_000;

export type Severity = 'info' | 'warning' | 'error' | 'critical';

export interface Message {
  readonly text: string;
  readonly severity: Severity;
  /** Equal for repetitions of the same message, so that a repeated step is one incident and not two. */
  readonly key: string;
  readonly run: { readonly id: string; readonly mode: string; readonly site: string; readonly from: string };
}

/** The request that tells a message: https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks, https://developer.pagerduty.com/docs/events-api-v2/trigger-events/. */
export function requestFor(
  to: NotificationConfig,
  { text, severity, key, run }: Message,
): { url: string; headers: Readonly<Record<string, string>>; body: string } {
  switch (to.kind) {
    case 'slack': {
      // What would be markup or a call to everybody is shown as it is.
      const plain = text.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;');
      return { url: to.url, headers: {}, body: JSON.stringify({ text: plain }) };
    }
    case 'pagerduty':
      return {
        url: to.url,
        headers: {},
        body: JSON.stringify({
          routing_key: to.routingKey,
          event_action: 'trigger',
          dedup_key: key,
          payload: {
            // The API's limit.
            summary: text.slice(0, 1024),
            severity,
            source: `dr at ${run.site}`,
            component: 'dr',
            group: run.mode,
            custom_details: { run: run.id, from: run.from, to: run.site },
          },
        }),
      };
    case 'webhook':
      return {
        url: to.url,
        headers: to.headers,
        body: JSON.stringify({ text, severity, key, run }),
      };
  }
}

/** Where a message goes, for people: addresses of webhooks are secrets. */
export function shownDestination(to: NotificationConfig): string {
  return `${to.kind} at ${new URL(to.url).host}`;
}

/** Sends a message; resolves when the service has taken it. Throws `unreachable` (retryable) or `refused`. */
export async function sendMessage(to: NotificationConfig, message: Message, signal: AbortSignal): Promise<void> {
  const { url, headers, body } = requestFor(to, { ...message, text: redact(message.text) });
  const where = shownDestination(to);
  const answer = await post(url, headers, body, AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MS)])).catch(
    (error: unknown) => {
      signal.throwIfAborted();
      throw new DrError('unreachable', `the message could not be sent: ${redact(messageOf(error))}`, {
        where,
        next: 'Tell the people concerned yourself; see that this machine reaches the service.',
        cause: error,
        retryable: true,
      });
    },
  );
  if (answer.status >= 200 && answer.status < 300) return;
  const busy = answer.status === 429 || answer.status >= 500;
  throw new DrError(
    busy ? 'unreachable' : 'refused',
    `the service did not take the message: HTTP ${answer.status} ${redact(answer.body).slice(0, 200)}`.trim(),
    {
      where,
      next: busy ? 'It is tried again.' : 'Correct the address or key of this notification in the configuration.',
      retryable: busy,
    },
  );
}

async function post(
  url: string,
  headers: Readonly<Record<string, string>>,
  body: string,
  signal: AbortSignal,
): Promise<{ status: number; body: string }> {
  const { request } = url.startsWith('https:') ? https : http;
  return await new Promise((resolve, reject) => {
    const sent = request(
      url,
      {
        method: 'POST',
        signal,
        agent: false,
        headers: { ...headers, 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) },
      },
      (response) => {
        let text = '';
        response.setEncoding('utf8');
        response.on('data', (piece: string) => {
          if (text.length < 4096) text += piece;
        });
        response.on('end', () => resolve({ status: response.statusCode ?? 0, body: text }));
        response.on('error', reject);
      },
    );
    sent.on('error', reject);
    sent.end(body);
  });
}
