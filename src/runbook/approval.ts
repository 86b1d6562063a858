import { z } from 'zod';
import type { Clock } from '../base/clock.ts';
import { DrError } from '../base/errors.ts';
import { formatDuration } from '../base/units.ts';
import { layout, RUN_FORMAT_VERSION } from '../vault/layout.ts';
import { decodeRecord, encodeRecord } from '../vault/record.ts';
import type { ObjectStore } from '../vault/store.ts';
import type { Journal } from './journal.ts';
import type { Approval, StepInstance } from './model.ts';

/** How often the vault is asked for the answer, milliseconds. */
const POLL_MS = 2000;

const answerSchema = z.object({
  format: z.literal(1),
  runId: z.string(),
  step: z.string(),
  answer: z.enum(['approve', 'refuse']),
  /** Who answered, as they gave their name, and the account and machine it came from. */
  name: z.string(),
  account: z.string(),
  comment: z.string().optional(),
  at: z.iso.datetime(),
});
export type Answer = z.infer<typeof answerSchema>;

/**
 * Records a person's answer. It is an object of its own beside the journal, create-only, because only the executor may append there;
 * the first answer counts.
 */
export async function answerApproval(store: ObjectStore, answer: Omit<Answer, 'format'>): Promise<void> {
  const key = layout.runApproval(answer.runId, answer.step);
  if ((await store.create(key, encodeRecord({ format: RUN_FORMAT_VERSION, ...answer }))) === 'created') return;
  const first = await readAnswer(store, answer.runId, answer.step);
  throw new DrError(
    'conflict',
    `${first?.name ?? 'somebody'} has answered for step ${answer.step} already: ${first?.answer}`,
    {
      where: `${store.location}/${key}`,
      next: `See "dr runs ${answer.runId}".`,
    },
  );
}

async function readAnswer(store: ObjectStore, runId: string, step: string): Promise<Answer | undefined> {
  const key = layout.runApproval(runId, step);
  if ((await store.stat(key)) === undefined) return undefined;
  const where = `${store.location}/${key}`;
  const parsed = answerSchema.safeParse(decodeRecord(await store.read(key), 'the approval', where));
  if (!parsed.success) throw new DrError('corrupt', 'this is no approval', { where, cause: parsed.error });
  return parsed.data;
}

/**
 * Waits until a person who may do so has agreed to `prompt`, which has its references filled in. Throws `refused` (no, or the wrong person) or `check-failed`
 * (too late).
 */
export async function awaitApproval(
  journal: Journal,
  parts: { readonly clock: Clock; readonly world: { readonly vaults: readonly ObjectStore[] } },
  instance: StepInstance,
  { prompt, by, timeoutMs }: Approval,
  signal: AbortSignal,
): Promise<void> {
  const { clock, world } = parts;
  const step = instance.id;
  const where = `step ${step} of run ${journal.runId}`;
  await journal.append({ type: 'approval-requested', step, prompt, from: [...by] });
  const deadline = clock.now() + timeoutMs;
  // A drill that fails has ended; any other run stops, and goes on.
  const ends = journal.state.started?.mode === 'drill';
  for (;;) {
    const answer = await newestAnswer(world.vaults, journal.runId, step);
    if (answer) {
      const { name, comment } = answer;
      if (by.length > 0 && !by.includes(name)) {
        throw new DrError('refused', `${name} may not answer: ${by.join(', ')} may`, {
          where,
          next: `Start a new run${ends ? '' : ' (--new)'} and let one of them answer.`,
        });
      }
      if (answer.answer === 'refuse') {
        throw new DrError('refused', `${name} refused${comment ? `: ${comment}` : ''}`, {
          where,
          next: `Nothing of this step has happened. Start a new run${ends ? '' : ' (--new)'} when the reason is gone.`,
        });
      }
      const given = { name: `${name} (${answer.account})`, givenAt: answer.at, ...(comment ? { comment } : {}) };
      return await journal.append({ type: 'approval-given', step, ...given });
    }
    if (clock.now() >= deadline) {
      throw new DrError('check-failed', `nobody approved within ${formatDuration(timeoutMs)}`, {
        where,
        next: ends
          ? 'Start another drill when somebody is there to answer, or give them longer: "timeout" of the approval.'
          : `Approve with ${approvalCommand(journal.runId, step, by)}, then run the same command again.`,
      });
    }
    await clock.sleep(Math.min(POLL_MS, Math.max(1, deadline - clock.now())), signal);
  }
}

/** The command that answers for a step, and who may: `"dr runs ID --approve 'promote[orders]' --as NAME" (NAME: Ada or Grace)`. */
export function approvalCommand(runId: string, step: string, by: readonly string[]): string {
  const who = by.length === 0 ? '' : ` (NAME is ${by.join(' or ')}, written like this)`;
  return `"dr runs ${runId} --approve '${step}' --as NAME"${who}`;
}

/** The answer as any vault has it: an approver may reach only one. */
async function newestAnswer(stores: readonly ObjectStore[], runId: string, step: string): Promise<Answer | undefined> {
  for (const store of stores) {
    try {
      const answer = await readAnswer(store, runId, step);
      if (answer) return answer;
    } catch (error) {
      // A vault that does not answer has no say; a damaged approval is one that nobody should act upon.
      if (!(error instanceof DrError && (error.kind === 'unreachable' || error.kind === 'denied'))) throw error;
    }
  }
  return undefined;
}
