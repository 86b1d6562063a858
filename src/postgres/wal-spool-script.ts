import { readFile } from 'node:fs/promises';

/** Exit code of the script for "the feeder failed": anything above 125 ends recovery (`RestoreArchivedFile`, `xlogarchive.c`). */
export const feederFailedCode = 200;

/** Seconds after which a feeder without sign of life counts as dead, where the system does not show processes. */
export const heartbeatLimitSeconds = 60;

/**
 * The program that PostgreSQL runs for each WAL file: plain POSIX shell, one `mv` in the usual case, where the file was
 * fetched ahead. It ends with 0 = delivered, 1 = the archive has no such file, 200 = no answer, recovery must stop.
 *
 * Is the feeder alive? Its process number with its start time tell, so that a later process of the same number is not
 * taken for it. Where /proc is missing or hides other users' processes, the age of the file `alive` tells.
 */
export function spoolScript(directory: string, feeder: { pid: number; born: string }, proc = '/proc'): string {
  return `#!/bin/sh
# Written by dr: restore_command of a recovery. $1 = name of the WAL file, $2 = where PostgreSQL wants it.
spool=${shellQuote(directory)}
proc=${shellQuote(proc)}
feeder=${feeder.pid}
born=${shellQuote(feeder.born)}
file=$1

fail() {
  echo "dr: $file: $1" >&2
  exit ${feederFailedCode}
}

alive() {
  if [ -d "$proc/1" ] && [ -n "$born" ]; then
    read -r facts 2>/dev/null <"$proc/$feeder/stat" || return 1
    set -- \${facts##*) }
    [ "\${20}" = "$born" ]
  else
    [ -z "$(find "$spool/alive" -mmin +${heartbeatLimitSeconds / 60} 2>/dev/null)" ]
  fi
}

printf '%s\\n' "$file" 2>/dev/null >>"$spool/asked" || fail "the spool directory $spool is gone"
while :; do
  if [ -f "$spool/have/$file" ]; then
    mv -f "$spool/have/$file" "$2" && exit 0
    fail "cannot be moved to $2"
  fi
  if [ -f "$spool/none/$file" ]; then
    rm -f "$spool/none/$file" || fail "cannot take the answer"
    exit 1
  fi
  [ -f "$spool/error" ] && fail "$(cat "$spool/error")"
  [ -d "$spool/have" ] || fail "the spool directory $spool is gone"
  alive || fail "process $feeder, which feeds this recovery, has ended; run the dr command again"
  sleep 0.01 2>/dev/null || sleep 1
done
`;
}

/** Start time of a process in the kernel's own unit (field 22 of /proc/PID/stat); empty where there is no /proc. */
export async function processBorn(pid: number): Promise<string> {
  const facts = await readFile(`/proc/${pid}/stat`, 'latin1').catch(() => '');
  // The program's name, in parentheses, may contain anything; what follows it begins with field 3.
  return facts.slice(facts.lastIndexOf(')') + 2).split(' ')[19] ?? '';
}

/** One word for the shell, whatever it contains. */
export function shellQuote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
