/** How far one long operation has come. Adapters and engines report it; only `commands/` and `daemon/` show it. */
export interface Progress {
  /** What is being worked on: `backup orders`, `restore orders`, `replay orders`. */
  readonly task: string;
  /** Work done so far and in all (0 when unknown), in `unit`. */
  readonly done: number;
  readonly total: number;
  readonly unit: 'bytes' | 'objects' | 'seconds';
  /** What is happening now, for people: a path, a segment, an LSN. */
  readonly detail?: string;
}

export type OnProgress = (progress: Progress) => void;
