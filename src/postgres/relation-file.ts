/** A file of a relation in the data directory (`relpath.c`). */
export interface RelationFile {
  /** `<tablespace oid>/<database oid>/<file number>`, as WAL names the relation. */
  readonly relation: string;
  readonly fork: 'main' | 'fsm' | 'vm' | 'init';
  /** Number of the segment: files are cut at 1 GiB. */
  readonly segment: number;
}

const pattern = /^(?:(global)|base\/(\d+)|pg_tblspc\/(\d+)\/PG_[^/]+\/(\d+))\/(\d+)(?:_(fsm|vm|init))?(?:\.(\d+))?$/;
/** `DEFAULTTABLESPACE_OID` and `GLOBALTABLESPACE_OID` of `pg_tablespace.dat`. */
const defaultTablespace = '1663';
const globalTablespace = '1664';

/** Reads a path relative to the data directory; undefined for any other file. */
export function parseRelationFile(path: string): RelationFile | undefined {
  const match = pattern.exec(path);
  if (!match) return undefined;
  const [, global, database, tablespace, tablespaceDatabase, number, fork, segment] = match;
  const folder = global
    ? `${globalTablespace}/0`
    : `${tablespace ?? defaultTablespace}/${tablespaceDatabase ?? database}`;
  return {
    relation: `${folder}/${number}`,
    fork: fork === 'fsm' || fork === 'vm' || fork === 'init' ? fork : 'main',
    segment: Number(segment ?? 0),
  };
}
