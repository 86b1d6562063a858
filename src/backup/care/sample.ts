import { createHash } from 'node:crypto';

/**
 * Which share of all content is read. Keys lie on a circle by their SHA-256; a sample is an arc of it. Arcs of turns that follow each
 * other lie side by side, so that after `1 / share` turns everything was read, and nothing has to be remembered but the number of the turn.
 */
export interface Sample {
  /** Above 0 and up to 1. */
  readonly share: number;
  /** Where the arc begins, 0 up to 2^32. */
  readonly from: number;
}

const CIRCLE = 2 ** 32;
const DAY_MS = 86_400_000;

/** All of it. */
export const everything: Sample = { share: 1, from: 0 };

/** The sample of one turn; turns are whole numbers from 0 on. */
export function sampleOfTurn(share: number, turn: number): Sample {
  return { share, from: (turn * arcOf(share)) % CIRCLE };
}

/** The turn of a day (UTC): with one turn a day everything is read in `1 / share` days. */
export function turnOfDay(nowMs: number): number {
  return Math.floor(nowMs / DAY_MS);
}

/** The sample that a word chooses: a day (`2026-11-23`) that of its turn, any other word always the same one. */
export function sampleOfSeed(share: number, seed: string): Sample {
  const dayMs = /^\d{4}-\d{2}-\d{2}$/.test(seed) ? Date.parse(`${seed}T00:00:00Z`) : Number.NaN;
  return Number.isNaN(dayMs) ? { share, from: placeOf(seed) } : sampleOfTurn(share, turnOfDay(dayMs));
}

export function isInSample({ share, from }: Sample, key: string): boolean {
  return share >= 1 || (placeOf(key) - from + CIRCLE) % CIRCLE < arcOf(share);
}

/** Rounded up: side by side the arcs leave no gap. */
function arcOf(share: number): number {
  return Math.min(CIRCLE, Math.ceil(share * CIRCLE));
}

function placeOf(text: string): number {
  return createHash('sha256').update(text).digest().readUInt32BE(0);
}
