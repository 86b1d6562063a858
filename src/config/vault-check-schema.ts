import { z } from 'zod';
import { cadenceForms } from './cadence.ts';
import { cadence, flag } from './scalars.ts';

/** When the daemon looks at what the vaults hold, and whether it mends what it finds. */

const cadenceOrNever = () =>
  z.union([z.literal('never').transform(() => undefined), cadence().refine(({ kind }) => kind !== 'on-change')], {
    error: `must be ${cadenceForms}, or never`,
  });

/** `5%`; the value is above 0 and up to 1. */
const sampleShare = () => {
  const error = 'must be a share above 0, in percent, for example 5%';
  return z
    .string({ error })
    .regex(/^\s*\d+(\.\d+)?\s*%\s*$/, { error })
    .transform((text) => Number(text.replace('%', '')) / 100)
    .refine((share) => share > 0 && share <= 1, { error });
};

export const vaultCheck = z
  .strictObject({
    schedule: cadenceOrNever()
      .prefault('daily')
      .describe('When every object of every vault is looked for and every record read; "never" = only by command.'),
    readData: cadenceOrNever()
      .prefault('weekly')
      .describe('When content is read and compared with its SHA-256; "never" = only by command.'),
    sample: sampleShare()
      .prefault('5%')
      .describe('The share of the content that is read each time: another one each time, until all of it was read.'),
    repair: flag()
      .prefault(true)
      .describe('True = what is missing or damaged is mended from the other vaults at once; false = only reported.'),
  })
  .prefault({})
  .describe('Scheduled look at what the vaults hold.');
