import type { FileHandle } from 'node:fs/promises';
import { sameRun } from './extents.ts';
import type { Extent, IndexEntry } from './index-format.ts';

/** One read from a vault takes up to this many bytes and frames: large enough for throughput, small enough for parallelism. */
const READ_BYTES = 4 * 1024 * 1024;
const READ_FRAMES = 8;

/** A file that is being restored. */
export interface FilePlan {
  readonly entry: IndexEntry;
  readonly absolute: Buffer | undefined;
  /** Extents not written yet. */
  outstanding: number;
  handle: Promise<FileHandle> | undefined;
  opened: FileHandle | undefined;
  /** Bytes written since the last flush, and that flush: it rejects when the disk failed. */
  unflushed: number;
  flush: Promise<void> | undefined;
}

/** A run that is checked once, and the files that its slices go to. */
export interface RunPlan {
  readonly extent: Extent;
  readonly blockBytes: number | undefined;
  readonly slices: Array<{ readonly extent: Extent; readonly file: FilePlan }>;
}

/** A frame to be read, with everything that is wanted of it. */
export interface FramePlan {
  readonly extent: Extent;
  readonly runs: RunPlan[];
}

/** What is to be read of a vault, by frames: each is read and opened once, whatever is wanted of it. */
export class ReadPlan {
  readonly #frames = new Map<string, FramePlan>();

  add(file: FilePlan): void {
    const { extents, blockBytes } = file.entry;
    for (const extent of extents) {
      const id = `${extent.part}:${extent.frameOffset}`;
      let frame = this.#frames.get(id);
      if (!frame) {
        frame = { extent, runs: [] };
        this.#frames.set(id, frame);
      }
      const last = frame.runs.at(-1);
      if (last && last.blockBytes === blockBytes && sameRun(last.extent, extent)) last.slices.push({ extent, file });
      else frame.runs.push({ extent, blockBytes, slices: [{ extent, file }] });
    }
  }

  /** Neighbouring frames of a part, joined into reads; empties the plan. */
  *take(): Generator<FramePlan[]> {
    const frames = [...this.#frames.values()].sort(
      (a, b) => a.extent.part - b.extent.part || a.extent.frameOffset - b.extent.frameOffset,
    );
    this.#frames.clear();
    let read: FramePlan[] = [];
    for (const frame of frames) {
      const [first, last] = [read[0], read.at(-1)];
      if (first && last) {
        const adjacent =
          frame.extent.part === last.extent.part &&
          frame.extent.frameOffset === last.extent.frameOffset + last.extent.frameLength &&
          frame.extent.frameOffset + frame.extent.frameLength - first.extent.frameOffset <= READ_BYTES;
        if (!adjacent || read.length >= READ_FRAMES) {
          yield read;
          read = [];
        }
      }
      read.push(frame);
    }
    if (read.length > 0) yield read;
  }
}
