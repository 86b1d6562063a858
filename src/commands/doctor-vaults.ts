import { isAbort } from '../base/errors.ts';
import { bad, doubtful, type Finding, fromError } from '../base/finding.ts';
import type { Config } from '../config/types.ts';
import type { Area } from '../report/doctor.ts';
import { doctorVault, type VaultExamination } from '../vault/doctor.ts';
import { openVault } from '../vault/open.ts';
import { findStrangers, mergeRosters, rosterIn, strangerError } from '../vault/roster-record.ts';
import type { ObjectStore } from '../vault/store.ts';
import type { CommandContext } from './context.ts';
import type { Within } from './doctor-looks.ts';

/** The vaults as they were found. */
export interface ExaminedVaults {
  readonly areas: readonly Area[];
  /** Those that are vaults and answer: where backups, records and keys can be read. */
  readonly answering: readonly ObjectStore[];
  close(): Promise<void>;
}

/** Looks at all vaults at once, each within its time, and then at what they are to each other. */
export async function examineVaults(context: CommandContext, config: Config, within: Within): Promise<ExaminedVaults> {
  const stores = new Map<string, ObjectStore>();
  const examined = new Map<string, VaultExamination>();
  await Promise.all(
    Object.values(config.vaults).map(async (vault) => {
      examined.set(
        vault.name,
        await within(
          async (signal): Promise<VaultExamination> => {
            try {
              const store = openVault(vault, context.log);
              stores.set(vault.name, store);
              return await doctorVault(store, { signal, now: context.clock.now });
            } catch (error) {
              if (signal.aborted || isAbort(error)) throw error;
              return { findings: [fromError(error)], marker: undefined };
            }
          },
          () => ({
            findings: [
              bad(
                'no answer within the time of a look',
                'See whether a firewall drops its packets or its mount hangs.',
              ),
            ],
            marker: undefined,
          }),
        ),
      );
    }),
  );
  const answering = [...stores.values()].filter(({ name }) => examined.get(name)?.marker !== undefined);
  const lost = await lostVaults(context, answering, [...stores.values()], examined, within);
  const areas = Object.values(config.vaults).map(({ name, region }): Area => {
    const marker = examined.get(name)?.marker;
    const twin = [...examined].find(
      ([other, each]) => other < name && marker !== undefined && each.marker?.id === marker.id,
    );
    const findings: Finding[] = [...(lost.get(name) ?? examined.get(name)?.findings ?? [])];
    if (twin)
      findings.push(
        bad(`it is the same place as vault ${twin[0]}`, 'Give each vault a place of its own: one place is one copy.'),
      );
    const neighbours = Object.values(config.vaults).filter((other) => other.name < name && other.region === region);
    if (neighbours[0]) {
      const what = `it lies in the region of vault ${neighbours[0].name} (${region}): one disaster takes both`;
      findings.push(doubtful(what, 'Put one of them into another region.'));
    }
    return { name: `vault ${name} (${region})`, findings };
  });
  return {
    areas,
    answering,
    close: async () => {
      await Promise.all([...stores.values()].map((store) => store.close()));
    },
  };
}

/** Vaults without a marker that the others know: they are not new but gone. */
async function lostVaults(
  context: CommandContext,
  answering: readonly ObjectStore[],
  all: readonly ObjectStore[],
  examined: ReadonlyMap<string, VaultExamination>,
  within: Within,
): Promise<ReadonlyMap<string, readonly Finding[]>> {
  const suspects = all.filter(({ name }) => examined.get(name)?.marker === undefined);
  const found = new Map<string, readonly Finding[]>();
  const foreign = answering.filter(({ name }) => examined.get(name)?.marker !== undefined);
  if (foreign.length === 0) return found;
  const knowing = await within(
    async (signal) =>
      await Promise.all(
        answering.map(async (store) => ({
          store,
          id: examined.get(store.name)?.marker?.id ?? '',
          roster: await rosterIn(store, { signal }),
        })),
      ),
    () => undefined,
  ).catch((error: unknown) => {
    if (context.signal.aborted || isAbort(error)) throw error;
    context.log.debug({ error }, 'the record of the vaults cannot be read');
    return undefined;
  });
  const strangers = findStrangers(knowing ?? []);
  for (const stranger of strangers) {
    const { name } = stranger.vault.store;
    found.set(name, [...(examined.get(name)?.findings ?? []), fromError(strangerError(stranger))]);
  }
  const kin = (knowing ?? []).filter(({ store }) => !strangers.some(({ vault }) => vault.store === store));
  const roster = mergeRosters(kin.map((vault) => vault.roster));
  for (const store of suspects) {
    const known = roster.get(store.name);
    if (known?.location !== store.location) continue;
    const earlier = examined.get(store.name)?.findings ?? [];
    const what = `the vault ${store.name} was enrolled at ${store.location} and is not there now`;
    const next = `Mount it or bring it back; if it is lost for good, \`dr vault enrol ${store.name}\` begins a new one there.`;
    found.set(store.name, [bad(what, next), ...earlier.filter(({ verdict }) => verdict === 'fail')]);
  }
  for (const store of foreign) {
    if (found.has(store.name)) continue;
    const known = roster.get(store.name);
    const id = examined.get(store.name)?.marker?.id;
    if (known === undefined || known.location !== store.location || known.id === id) continue;
    const what = `this vault (${id}) is not the one that was enrolled at ${store.location} (${known.id})`;
    found.set(store.name, [
      ...(examined.get(store.name)?.findings ?? []),
      bad(what, `Bring the old one back, or begin anew with \`dr vault enrol ${store.name}\`.`),
    ]);
  }
  return found;
}
