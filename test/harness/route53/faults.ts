/** What an API call meets instead of its normal answer. */
export type ApiFault =
  | { readonly kind: 'throttle' }
  | { readonly kind: 'busy' } // PriorRequestNotComplete
  | { readonly kind: 'status'; readonly status: number }
  | { readonly kind: 'deny' } // AccessDenied
  | { readonly kind: 'hang' } // accepts the request and never answers
  | { readonly kind: 'drop' } // closes the connection, the request has no effect
  | { readonly kind: 'lose-reply' } // does the work, then closes the connection without answering
  | { readonly kind: 'accept' } // says PENDING to a batch without judging or applying it, as a careless emulator does
  | { readonly kind: 'before'; readonly act: () => void }; // something happens first, then the normal answer

/** What the name server does with queries. */
export type DnsMode = 'answer' | 'silent' | 'refuse' | 'truncate' | 'not-authoritative';

/** Faults by API action (`ChangeResourceRecordSets`), or for any action under `*`. */
export class Faults {
  dns: DnsMode = 'answer';
  readonly #queued = new Map<string, ApiFault[]>();
  readonly #always = new Map<string, ApiFault>();

  /** The next `times` calls of the action meet the fault. */
  next(action: string, fault: ApiFault, times = 1): void {
    const queue = this.#queued.get(action) ?? [];
    for (let i = 0; i < times; i++) queue.push(fault);
    this.#queued.set(action, queue);
  }

  /** Every call of the action meets the fault until `clear`. */
  always(action: string, fault: ApiFault): void {
    this.#always.set(action, fault);
  }

  clear(): void {
    this.dns = 'answer';
    this.#queued.clear();
    this.#always.clear();
  }

  take(action: string): ApiFault | undefined {
    for (const name of [action, '*']) {
      const fault = this.#queued.get(name)?.shift() ?? this.#always.get(name);
      if (fault !== undefined) return fault;
    }
    return undefined;
  }
}
