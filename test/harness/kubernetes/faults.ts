import type { Attempt } from './rbac.ts';

/** What a request meets instead of its normal answer. */
export type ApiFault =
  /** A Status with this code; the work is not done. */
  | { readonly kind: 'status'; readonly code: number; readonly retryAfter?: number; readonly message?: string }
  /** Accepts the request and never answers. */
  | { readonly kind: 'hang' }
  /** Closes the connection before anything is done. */
  | { readonly kind: 'drop' }
  /** Does the work, then closes the connection without an answer. */
  | { readonly kind: 'lose-reply' }
  /** Answers in words of its own, as a proxy does. */
  | { readonly kind: 'proxy'; readonly code: number; readonly text: string }
  /** Something happens first, then the normal answer. */
  | { readonly kind: 'before'; readonly act: () => unknown }
  /** Begins a watch and then says nothing, for ever. */
  | { readonly kind: 'stall' };

interface Rule {
  readonly matches: (attempt: Attempt) => boolean;
  readonly fault: ApiFault;
  left: number;
}

/** Faults by verb (`list`, `patch`), or for any verb under `*`; `resource` narrows them. */
export class Faults {
  #rules: Rule[] = [];

  /** The next `times` matching requests meet the fault. */
  next(verb: string, fault: ApiFault, times = 1, resource?: string): void {
    const matches = (attempt: Attempt) =>
      (verb === '*' || attempt.verb === verb) && (resource === undefined || attempt.resource === resource);
    this.#rules.push({ matches, fault, left: times });
  }

  /** Before the next matching request is looked at, this happens. */
  before(verb: string, act: () => unknown): void {
    this.next(verb, { kind: 'before', act });
  }

  always(verb: string, fault: ApiFault, resource?: string): void {
    this.next(verb, fault, Number.POSITIVE_INFINITY, resource);
  }

  clear(): void {
    this.#rules = [];
  }

  take(attempt: Attempt): ApiFault | undefined {
    const rule = this.#rules.find(({ left, matches }) => left > 0 && matches(attempt));
    if (rule) rule.left--;
    return rule?.fault;
  }
}
