import { formatLsn } from '../postgres/lsn.ts';
import { lookAtQuiet, quiesceRights, quiesceServer, reopenServer } from '../postgres/quiesce.ts';
import type { WriterPort } from './ports.ts';

/** Real hands: SQL sessions at the old primary. */
export const sqlWriters: WriterPort = {
  missingRights: async (url, signal) => await quiesceRights(url, signal),
  quiesce: async (url, runId, signal) => {
    const { flushedTo, ...facts } = await quiesceServer(url, runId, signal);
    return { ...facts, flushedTo: formatLsn(flushedTo) };
  },
  look: async (url, signal) => {
    const { flushedTo, nextXid, sessions, open, refusal } = await lookAtQuiet(url, signal);
    const loud = [
      ...(sessions.length > 0 ? [`sessions are open: ${sessions.join(', ')}`] : []),
      ...(open.length > 0 ? [`roles may log in: ${open.join(', ')}`] : []),
      ...(refusal === undefined ? ['it accepted a write'] : []),
    ];
    return { flushedTo: formatLsn(flushedTo), nextXid, loud, refusal: refusal ?? '' };
  },
  reopen: async (url, signal) => await reopenServer(url, signal),
};
