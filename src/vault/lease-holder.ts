import { readFile, readlink } from 'node:fs/promises';
import { hostname, userInfo } from 'node:os';
import { codeOf } from '../base/errors.ts';

/** The process that holds a lease, as it describes itself. */
export interface LeaseHolder {
  readonly host: string;
  readonly user: string;
  readonly pid: number;
  /** This start of the host's kernel and this process namespace (a container); empty where neither can be known. */
  readonly bootId: string;
  /** When the process began, in clock ticks since the host's start (tells apart two processes of one pid); empty = unknown. */
  readonly started: string;
}

/** This process. */
export async function currentHolder(): Promise<LeaseHolder> {
  return {
    host: hostname(),
    user: userName(),
    pid: process.pid,
    bootId: await bootId(),
    started: (await processState(process.pid))?.started ?? '',
  };
}

/** `ops@db-host-1, process 4711`. */
export function describeHolder(holder: LeaseHolder): string {
  return `${holder.user}@${holder.host}, process ${holder.pid}`;
}

/**
 * True only when it is certain that the process is gone: it ran in this very boot and process namespace, and there is no
 * process with its number, or it began at another time, or it is dead and only not yet collected by its parent.
 */
export async function isHolderDead(holder: LeaseHolder, self: LeaseHolder): Promise<boolean> {
  if (holder.bootId === '' || holder.bootId !== self.bootId || holder.host !== self.host) return false;
  try {
    process.kill(holder.pid, 0);
  } catch (error) {
    if (codeOf(error) === 'ESRCH') return true;
    // EPERM: a process of that number belongs to another user; whether it is the same one, its start time tells.
  }
  const state = await processState(holder.pid);
  if (state === undefined) return false; // Hidden from us, or gone this moment: the next attempt will know.
  return state.dead || (holder.started !== '' && state.started !== holder.started);
}

async function bootId(): Promise<string> {
  try {
    // Containers of one host share its boot id, and their process numbers mean nothing to each other: hence the namespace.
    const [boot, namespace] = await Promise.all([
      readFile('/proc/sys/kernel/random/boot_id', 'utf8'),
      readlink('/proc/self/ns/pid'),
    ]);
    return `${boot.trim()} ${namespace}`;
  } catch {
    return ''; // Not Linux: leases of dead processes end by their time only.
  }
}

/** Fields 3 (state) and 22 (start time) of `/proc/<pid>/stat`, see proc_pid_stat(5); undefined where it cannot be read. */
async function processState(pid: number): Promise<{ readonly started: string; readonly dead: boolean } | undefined> {
  try {
    const text = await readFile(`/proc/${pid}/stat`, 'utf8');
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
    return { started: fields[19] ?? '', dead: fields[0] === 'Z' || fields[0] === 'X' };
  } catch {
    return undefined;
  }
}

function userName(): string {
  try {
    return userInfo().username;
  } catch {
    return String(process.getuid?.() ?? 'unknown'); // A container's user often has no entry in passwd.
  }
}
