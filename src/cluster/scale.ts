import type { Scale } from './contract.ts';
import { isJson } from './json.ts';

/** What the subresource `scale` of a workload says (`autoscaling/v1`). */
export function readScale(answer: unknown): Scale {
  const part = (key: string) => (isJson(answer) && isJson(answer[key]) ? answer[key] : {});
  const { replicas = 0 } = part('spec');
  const { replicas: running = 0, selector = '' } = part('status');
  return {
    replicas: Number(replicas),
    running: Number(running),
    resourceVersion: String(part('metadata')['resourceVersion'] ?? ''),
    selector: String(selector),
  };
}
