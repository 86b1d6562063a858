import { z } from 'zod';
import type { HttpProbe } from './ports.ts';
import type { Metric } from './triggers.ts';

/** The URL that evaluates a query now (HTTP API of Prometheus, `/api/v1/query`). */
export function queryUrl(base: string, query: string): string {
  const url = new URL(base);
  url.pathname = `${url.pathname.replace(/\/+$/, '')}/api/v1/query`;
  url.searchParams.set('query', query);
  return url.toString();
}

const sample = z.tuple([z.number(), z.string()]);
const replySchema = z.discriminatedUnion('status', [
  z.object({ status: z.literal('error'), errorType: z.string(), error: z.string() }),
  z.object({
    status: z.literal('success'),
    data: z.discriminatedUnion('resultType', [
      z.object({ resultType: z.literal('scalar'), result: sample }),
      z.object({ resultType: z.literal('vector'), result: z.array(z.object({ value: sample })) }),
      z.object({ resultType: z.enum(['matrix', 'string']) }),
    ]),
  }),
]);

/** The one number that a query answered. */
export function metricOf({ status, body, detail }: HttpProbe): Metric {
  if (status === undefined) return { problem: `Prometheus gives no answer: ${detail}` };
  const reply = replySchema.safeParse(jsonOf(body));
  if (!reply.success) return { problem: `this is no answer of Prometheus (HTTP ${status})` };
  if (reply.data.status === 'error') {
    return { problem: `Prometheus refuses the query (${reply.data.errorType}): ${reply.data.error.slice(0, 200)}` };
  }
  const { data } = reply.data;
  if (data.resultType === 'scalar') return numberOf(data.result[1]);
  if (data.resultType !== 'vector') return { problem: `it answers a ${data.resultType}; write a query for one number` };
  const [first, ...more] = data.result;
  if (first === undefined) return { problem: 'it answers nothing: no series fits, or there are no requests' };
  if (more.length > 0) return { problem: `it answers ${data.result.length} series; sum them into one number` };
  return numberOf(first.value[1]);
}

/** Prometheus writes `NaN` for a share of no requests, which is no number to judge by; `+Inf` is one. */
function numberOf(text: string): Metric {
  if (text === '+Inf') return { value: Number.POSITIVE_INFINITY };
  const value = Number(text);
  return Number.isFinite(value) ? { value } : { problem: `it answers ${text}: there are no requests` };
}

function jsonOf(body: string): unknown {
  try {
    return JSON.parse(body);
  } catch {
    return undefined;
  }
}
