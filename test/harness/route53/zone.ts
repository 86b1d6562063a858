import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { isIPv4, isIPv6 } from 'node:net';

/** A record set as Route 53 stores it. Members beyond the first four make it something else than a simple record. */
export interface RecordSet {
  readonly name: string;
  readonly type: string;
  readonly ttl?: number;
  readonly values?: readonly string[];
  readonly setIdentifier?: string;
  readonly weight?: number;
  readonly failover?: 'PRIMARY' | 'SECONDARY';
  readonly healthCheckId?: string;
  readonly alias?: { readonly zone: string; readonly name: string };
}

export interface Change {
  readonly action: 'CREATE' | 'DELETE' | 'UPSERT';
  readonly set: RecordSet;
}

export interface ChangeInfo {
  readonly id: string;
  readonly submittedAt: string;
  status: 'PENDING' | 'INSYNC';
}

/** The sentences of an InvalidChangeBatch, as the service words them. */
export class InvalidBatch extends Error {
  readonly messages: readonly string[];

  constructor(messages: readonly string[]) {
    super(`[${messages.join(', ')}]`);
    this.messages = messages;
  }
}

export interface ZoneOptions {
  readonly zoneId: string;
  readonly zoneName: string;
  /** Milliseconds from accepting a change to INSYNC; `hold` and `release` overrule it. */
  readonly insyncDelayMs: number;
  /** JSON file that keeps the records over restarts. */
  readonly stateFile?: string | undefined;
}

/**
 * One hosted zone: what the API shows (`records`) and what the name servers answer (`published`), which follows when a change
 * comes INSYNC. Changes come INSYNC in the order in which they were accepted.
 */
export class Zone {
  readonly id: string;
  /** Lower case with trailing dot. */
  readonly name: string;
  insyncDelayMs: number;
  #records = new Map<string, RecordSet>();
  #published = new Map<string, RecordSet>();
  #serial = 1;
  #held = false;
  /** What health checks say, by id; one that is not here is healthy. */
  readonly health = new Map<string, () => boolean>();
  readonly #changes = new Map<string, ChangeInfo>();
  readonly #pending: Array<{ change: ChangeInfo; snapshot: Map<string, RecordSet>; timer?: NodeJS.Timeout }> = [];
  readonly #stateFile: string | undefined;

  constructor(options: ZoneOptions) {
    this.id = options.zoneId;
    this.name = fullName(options.zoneName);
    this.insyncDelayMs = options.insyncDelayMs;
    this.#stateFile = options.stateFile;
    this.#load();
  }

  get serial(): number {
    return this.#serial;
  }

  /** All record sets in the order of the API: by reversed labels, then type, then set identifier. */
  records(): RecordSet[] {
    return [...this.#records.values()].sort((a, b) => compare(orderOf(a), orderOf(b)));
  }

  /** Every value now answered for a name and type; undefined when no record of any type has the name (NXDOMAIN). */
  published(name: string, type: string): RecordSet[] | undefined {
    const here = [...this.#published.values()].filter((set) => set.name === fullName(name));
    return here.length === 0 ? undefined : here.filter((set) => set.type === type || set.type === 'CNAME');
  }

  /**
   * The one of several record sets of a name and type that an answer is made of: of failover routing the PRIMARY unless its
   * health check fails, of weighted routing by chance (developer guide, "How Amazon Route 53 chooses records").
   */
  chosen(sets: readonly RecordSet[], chance: () => number = Math.random): RecordSet | undefined {
    const healthy = sets.filter((set) => this.health.get(set.healthCheckId ?? '')?.() ?? true);
    if (sets.some((set) => set.failover !== undefined)) {
      const secondary = sets.find((set) => set.failover === 'SECONDARY');
      return healthy.find((set) => set.failover === 'PRIMARY') ?? secondary ?? sets[0];
    }
    const weights = (healthy.length > 0 ? healthy : sets).map((set) => ({ set, weight: set.weight ?? 1 }));
    const total = weights.reduce((sum, { weight }) => sum + weight, 0);
    let at = chance() * (total === 0 ? weights.length : total);
    for (const { set, weight } of weights) {
      at -= total === 0 ? 1 : weight;
      if (at < 0) return set;
    }
    return undefined;
  }

  /** Puts a record in place at once, as if it had always been there. */
  seed(...sets: RecordSet[]): void {
    for (const set of sets) {
      const normal = normalize(set);
      this.#records.set(keyOf(normal), normal);
      this.#published.set(keyOf(normal), normal);
    }
    this.#save();
  }

  change(id: string): ChangeInfo | undefined {
    return this.#changes.get(id);
  }

  /** Applies all changes or none: each is judged against the zone as the earlier ones of the batch leave it. */
  apply(changes: readonly Change[]): ChangeInfo {
    const next = new Map(this.#records);
    const wrong = changes.map((change) => applyOne(next, change, this.name)).filter((message) => message !== undefined);
    if (wrong.length > 0) throw new InvalidBatch(wrong);
    this.#records = next;
    this.#serial++;
    const id = `C${this.#serial.toString().padStart(4, '0')}${this.id}`;
    const change: ChangeInfo = { id, submittedAt: new Date().toISOString(), status: 'PENDING' };
    this.#changes.set(id, change);
    this.#pending.push({ change, snapshot: next });
    this.#save();
    if (!this.#held) this.#schedule();
    return change;
  }

  /** From now on accepted changes stay PENDING until `release`. */
  hold(): void {
    this.#held = true;
    for (const entry of this.#pending) clearTimeout(entry.timer);
  }

  /** Brings all pending changes INSYNC now, and lets later ones follow `insyncDelayMs` again. */
  release(): void {
    this.#held = false;
    while (this.#pending.length > 0) this.#publishOldest();
  }

  close(): void {
    for (const entry of this.#pending) clearTimeout(entry.timer);
  }

  #schedule(): void {
    if (this.insyncDelayMs <= 0) {
      this.release();
      return;
    }
    const entry = this.#pending[this.#pending.length - 1];
    if (entry === undefined) return;
    entry.timer = setTimeout(() => {
      while (entry.change.status === 'PENDING') this.#publishOldest();
    }, this.insyncDelayMs);
  }

  #publishOldest(): void {
    const entry = this.#pending.shift();
    if (entry === undefined) return;
    clearTimeout(entry.timer);
    this.#published = entry.snapshot;
    entry.change.status = 'INSYNC';
  }

  #save(): void {
    if (this.#stateFile === undefined) return;
    const temporary = `${this.#stateFile}.new`;
    writeFileSync(temporary, JSON.stringify({ serial: this.#serial, records: this.records() }, null, 2));
    renameSync(temporary, this.#stateFile);
  }

  /** After a restart everything that was accepted is published. */
  #load(): void {
    if (this.#stateFile === undefined) return;
    let text: string;
    try {
      text = readFileSync(this.#stateFile, 'utf8');
    } catch {
      return;
    }
    const state = JSON.parse(text) as { serial: number; records: RecordSet[] };
    this.#serial = state.serial;
    this.seed(...state.records);
  }
}

/** Lower case with trailing dot, `*` as `\052`, as the service shows names. */
export function fullName(name: string): string {
  return `${name.toLowerCase().replace(/\.$/, '').replaceAll('*', '\\052')}.`;
}

/** Position in a listing: labels from the top, then type, then set identifier. */
export function orderOf(set: {
  name: string;
  type?: string | undefined;
  setIdentifier?: string | undefined;
}): string[] {
  const labels = fullName(set.name)
    .split('.')
    .filter((label) => label !== '')
    .reverse();
  return [labels.join('\0'), set.type ?? '', set.setIdentifier ?? ''];
}

export function compare(a: readonly string[], b: readonly string[]): number {
  for (const [index, part] of a.entries()) {
    const other = b[index] ?? '';
    if (part !== other) return part < other ? -1 : 1;
  }
  return 0;
}

function normalize(set: RecordSet): RecordSet {
  return { ...set, name: fullName(set.name) };
}

function keyOf(set: RecordSet): string {
  return [set.name, set.type, set.setIdentifier ?? ''].join(' ');
}

/** Changes `records` and returns nothing, or leaves it and returns what is wrong, worded like the service. */
function applyOne(records: Map<string, RecordSet>, { action, set: raw }: Change, zone: string): string | undefined {
  const set = normalize(raw);
  const old = records.get(keyOf(set));
  const title = `resource record set [name='${set.name}', type='${set.type}'${set.setIdentifier === undefined ? '' : `, set-identifier='${set.setIdentifier}'`}]`;
  if (action === 'DELETE') {
    if (old === undefined) return `Tried to delete ${title} but it was not found`;
    if (!sameSet(old, set)) return `Tried to delete ${title} but the values provided do not match the current values`;
    records.delete(keyOf(set));
    return undefined;
  }
  if (set.name !== zone && !set.name.endsWith(`.${zone}`))
    return `RRSet with DNS name ${set.name} is not permitted in zone ${zone}`;
  if (action === 'CREATE' && old !== undefined) return `Tried to create ${title} but it already exists`;
  const wrong = wrongRouting([...records.values()], set);
  if (wrong !== undefined) return `RRSet with DNS name ${set.name}, type ${set.type} ${wrong}`;
  const rivals = [...records.values()].filter((other) => other.name === set.name && other.type !== set.type);
  if (set.type === 'CNAME' && (rivals.length > 0 || set.name === zone)) {
    return `RRSet of type CNAME with DNS name ${set.name} is not permitted as it conflicts with other records with the same DNS name in zone ${zone}`;
  }
  if (rivals.some((other) => other.type === 'CNAME')) {
    return `RRSet of type ${set.type} with DNS name ${set.name} is not permitted because a conflicting RRSet of type CNAME with the same DNS name already exists in zone ${zone}`;
  }
  for (const value of set.values ?? []) {
    if (set.type === 'A' && !isIPv4(value))
      return invalidValue('ARRDATAIllegalIPv4Address (Value is not a valid IPv4 address)', value);
    if (set.type === 'AAAA' && !isIPv6(value))
      return invalidValue('AAAARRDATAIllegalIPv6Address (Value is not a valid IPv6 address)', value);
  }
  records.set(keyOf(set), set);
  return undefined;
}

/** The rules for several sets of one name and type, in the order of the API reference (ResourceRecordSet). */
function wrongRouting(all: readonly RecordSet[], set: RecordSet): string | undefined {
  const isRouted = set.weight !== undefined || set.failover !== undefined;
  if (isRouted && set.setIdentifier === undefined) return 'needs a SetIdentifier: missing field SetIdentifier';
  if (!isRouted && set.setIdentifier !== undefined) return 'has a SetIdentifier without a routing policy';
  if (set.weight !== undefined && !(set.weight >= 0 && set.weight <= 255)) return 'has a weight outside 0 to 255';
  const others = all.filter(
    (other) => other.name === set.name && other.type === set.type && other.setIdentifier !== set.setIdentifier,
  );
  if (others.some((other) => form(other) !== form(set)))
    return 'cannot be created as other RRSets exist with the same name and type with another routing policy';
  if (set.failover !== undefined && others.some((other) => other.failover === set.failover))
    return `cannot be created: a ${set.failover} failover record exists already`;
  return undefined;
}

function form(set: RecordSet): string {
  if (set.failover !== undefined) return 'failover';
  return set.weight === undefined ? 'simple' : 'weighted';
}

function invalidValue(problem: string, value: string): string {
  return `Invalid Resource Record: 'FATAL problem: ${problem} encountered with '${value}''`;
}

function sameSet(a: RecordSet, b: RecordSet): boolean {
  const content = (set: RecordSet) =>
    JSON.stringify([set.ttl, [...(set.values ?? [])].sort(), set.weight, set.failover, set.healthCheckId, set.alias]);
  return content(a) === content(b);
}
