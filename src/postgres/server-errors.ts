import { codeOf, DrError, type ErrorKind, isAbort, messageOf } from '../base/errors.ts';
import { redact } from '../base/redact.ts';
import type { ServerMessage } from './wire.ts';

/** What was being done when the server said no: decides the advice. */
export interface ServerContext {
  /** `host:port/database`, without credentials. */
  readonly where: string;
  /** As in "cannot <doing>". */
  readonly doing: string;
  /** The role of the connection. */
  readonly user: string;
  readonly slot?: string | undefined;
  /** Kind of an error that this file does not know; default `internal` (a command of ours was wrong). */
  readonly unknownKind?: ErrorKind;
}

/** The server's own error, as `cause` of the `DrError`. `code` is the SQLSTATE. */
export class PostgresError extends Error {
  override readonly name = 'PostgresError';
  readonly code: string;
  readonly detail: string | undefined;
  readonly routine: string | undefined;

  constructor(message: ServerMessage) {
    super(message.message);
    this.routine = message.routine;
    this.code = message.sqlstate;
    this.detail = message.detail;
  }
}

/** The SQLSTATE of a failure, wherever in its causes the server's error is; undefined when no server said anything. */
export function sqlstateOf(error: unknown): string | undefined {
  for (let at = error; at instanceof Error; at = at.cause) {
    const code = codeOf(at);
    if (code !== undefined && /^[0-9A-Z]{5}$/.test(code) && !/^E[A-Z]{4}$/.test(code)) return code;
  }
  return undefined;
}

/** True when the server no longer has WAL that was asked for: only a new base backup closes this gap. */
export function isWalGone(error: unknown): boolean {
  return (
    error instanceof DrError &&
    error.cause instanceof PostgresError &&
    saysWalGone(error.cause.code, error.cause.routine)
  );
}

/**
 * True when the server has invalidated the slot and refuses it (18 and newer; before, only `isWalGone` tells): it has to be
 * dropped and created again, and WAL since its position may be gone.
 */
export function isSlotLost(error: unknown): boolean {
  if (!(error instanceof DrError) || !(error.cause instanceof PostgresError)) return false;
  return error.cause.code === '55000' && error.cause.routine === 'ReplicationSlotAcquire';
}

/** A missing segment has a code (no such file); one that is removed while it is being read has none of its own. */
function saysWalGone(sqlstate: string, routine: string | undefined): boolean {
  return sqlstate === '58P01' || routine === 'CheckXLogRemoved';
}

interface Advice {
  readonly kind: ErrorKind;
  readonly next: string;
  readonly retryable?: boolean;
}

/** Turns an error of the server into one that says what to do. */
export function serverError(message: ServerMessage, context: ServerContext): DrError {
  const advice = adviceFor(message, context);
  const parts = [message.message, message.detail, message.hint].filter((part) => part !== undefined);
  return new DrError(advice.kind, redact(`cannot ${context.doing}: ${parts.join('; ')} [${message.sqlstate}]`), {
    where: context.where,
    next: advice.next,
    retryable: advice.retryable ?? advice.kind === 'unreachable',
    cause: new PostgresError(message),
  });
}

function adviceFor(message: ServerMessage, context: ServerContext): Advice {
  const user = identifier(context.user);
  const slot = context.slot ?? 'dr';
  if (saysWalGone(message.sqlstate, message.routine)) {
    return {
      kind: 'not-found',
      next: `Take a new base backup now: recovery to a time across this gap is impossible. Then prevent it: raise max_slot_wal_keep_size or wal_keep_size, and see wal_status of slot ${slot} in pg_replication_slots.`,
    };
  }
  switch (message.sqlstate) {
    case '28P01':
      return { kind: 'denied', next: `Correct the password in the URL, or set it: ALTER ROLE ${user} PASSWORD '…';` };
    case '28000':
      return authorization(message, user);
    case '42501':
      return insufficient(message, user);
    case '3D000':
      return { kind: 'config', next: 'Correct the database name at the end of the URL.' };
    case '53300':
      return exhausted(message);
    case '57P01':
    case '57P02':
    case '57P03':
      return { kind: 'unreachable', next: 'Wait until the server accepts connections; its log says how far it is.' };
    case '57P05':
      return {
        kind: 'unreachable',
        next: 'The server ended an idle session: raise idle_session_timeout for this role.',
      };
    case '57014':
      return {
        kind: 'unreachable',
        next: 'The command was cancelled or timed out on the server: see statement_timeout and the server log.',
      };
    case '53400':
      return {
        kind: 'refused',
        next: 'Raise max_replication_slots and restart the server, or drop an unused slot: SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active;',
      };
    case '53100':
      return { kind: 'local', next: 'The disk of the database server is full: free space there.' };
    case '55006':
      return {
        kind: 'conflict',
        retryable: true,
        next: `Stop the other receiver of slot ${slot}, or give this one its own: SELECT pid, application_name, client_addr FROM pg_stat_replication; a dead one goes after wal_sender_timeout, or by SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '${slot}';`,
      };
    case '42704':
      return {
        kind: 'not-found',
        next: `Create the slot: SELECT pg_create_physical_replication_slot('${slot}', true); then take a new base backup, because WAL in between may be lost.`,
      };
    case '55000':
      return prerequisite(message, slot);
    case 'XX000':
      // Raised without a code of its own: asked for WAL of another branch of history, or beyond the server's end.
      if (message.routine === 'tliSwitchPoint' || message.routine === 'StartReplication') return otherHistory;
      break;
    case '0A000':
      return {
        kind: 'config',
        next: `The server does not support this here. If ${slot} is a logical slot, configure another name for wal.slot.`,
      };
    case 'XX001':
    case 'XX002':
      return {
        kind: 'corrupt',
        next: 'The database itself has damaged pages: the server log names file and block. Restore them from an older verified backup (pg_amcheck shows what is affected), and check the disk.',
      };
  }
  if (/^(08|53|57|58)/.test(message.sqlstate))
    return { kind: 'unreachable', next: 'See the server log; it is tried again.' };
  const unknownKind = context.unknownKind ?? 'internal';
  const next =
    unknownKind === 'internal'
      ? 'See the server log; if it repeats, report it as a defect of dr with the version of the server.'
      : 'Correct the statement and run it again.';
  return { kind: unknownKind, next, retryable: /^(40|55P03)/.test(message.sqlstate) };
}

function authorization(message: ServerMessage, user: string): Advice {
  if (message.routine === 'ClientAuthentication') {
    return {
      kind: 'denied',
      next: `Add a line to pg_hba.conf on the server ("host replication ${user} <address of dr>/32 scram-sha-256" for backups and WAL, "host <database> …" for checks), then run: SELECT pg_reload_conf();`,
    };
  }
  if (message.routine === 'auth_failed') {
    return {
      kind: 'denied',
      next: `Check how pg_hba.conf authenticates ${user} (peer and ident want the same name in the operating system), or use a password.`,
    };
  }
  return {
    kind: 'denied',
    next: `Create or allow the role: CREATE ROLE ${user} LOGIN REPLICATION PASSWORD '…'; (or ALTER ROLE ${user} LOGIN;)`,
  };
}

function insufficient(message: ServerMessage, user: string): Advice {
  if (message.routine === 'InitPostgres' || /replication/i.test(message.message)) {
    return { kind: 'denied', next: `Give the role the right to replicate: ALTER ROLE ${user} REPLICATION;` };
  }
  return {
    kind: 'denied',
    next: `Grant the role what the message names, for example: GRANT pg_read_all_settings, pg_read_all_stats TO ${user};`,
  };
}

function exhausted(message: ServerMessage): Advice {
  if (/max_wal_senders/.test(message.message)) {
    const none = /\D0\)\s*$/.test(message.message);
    if (none) {
      return {
        kind: 'config',
        retryable: false,
        next: "Replication is switched off. Run: ALTER SYSTEM SET wal_level = 'replica'; ALTER SYSTEM SET max_wal_senders = 10; and restart the server.",
      };
    }
    return {
      kind: 'unreachable',
      next: 'Raise max_wal_senders (a backup and WAL receiving need two) and restart the server, or end other senders: SELECT pid, application_name, client_addr FROM pg_stat_replication;',
    };
  }
  return {
    kind: 'unreachable',
    next: 'Raise max_connections or free connections: SELECT usename, state, count(*) FROM pg_stat_activity GROUP BY 1, 2;',
  };
}

const otherHistory: Advice = {
  kind: 'refused',
  next: 'The server is on another branch of history than the archive (a failover, a restore or an older standby). Check that the URL leads to the active primary, then take a new base backup.',
};

function prerequisite(message: ServerMessage, slot: string): Advice {
  if (/wal_level/.test(message.message)) {
    return { kind: 'config', next: "Run: ALTER SYSTEM SET wal_level = 'replica'; and restart the server." };
  }
  if (/in progress|not in progress|recovery/i.test(message.message)) {
    return {
      kind: 'unreachable',
      next: 'Check whether the server is starting up, was promoted or runs another backup command, then run it again.',
    };
  }
  return {
    kind: 'refused',
    next: `See the slot: SELECT slot_name, slot_type, active, wal_status FROM pg_replication_slots; if it is lost: SELECT pg_drop_replication_slot('${slot}'); and take a new base backup.`,
  };
}

/** Turns a failure to connect (of the network, of TLS, of the server) into one that says what to do. */
export function connectError(error: unknown, context: ServerContext): DrError {
  if (error instanceof DrError) return error;
  const { where } = context;
  const sqlstate = sqlstateOf(error);
  if (sqlstate !== undefined && error instanceof Error) {
    const text = (name: string): string | undefined => {
      const value: unknown = Reflect.get(error, name);
      return typeof value === 'string' ? value : undefined;
    };
    return serverError(
      {
        severity: text('severity') ?? 'FATAL',
        sqlstate,
        message: error.message,
        detail: text('detail'),
        hint: text('hint'),
        routine: text('routine'),
      },
      context,
    );
  }
  if (isAbort(error))
    return new DrError('interrupted', `cannot ${context.doing}: interrupted`, { where, cause: error });
  const message = redact(`cannot ${context.doing}: ${messageOf(error)}`);
  const code = codeOf(error instanceof AggregateError ? (error.errors[0] ?? error) : error) ?? '';
  for (const [pattern, kind, next] of connectAdvice) {
    if (pattern.test(code) || pattern.test(messageOf(error)))
      return new DrError(kind, message, { where, next, cause: error });
  }
  return new DrError('unreachable', message, {
    where,
    next: 'Check host, port, network and firewall, and that the server runs.',
    cause: error,
  });
}

const connectAdvice: ReadonlyArray<readonly [RegExp, ErrorKind, string]> = [
  [
    /ECONNREFUSED|ENOENT/,
    'unreachable',
    'Start the server, or correct host and port in the URL (for a socket: the directory of unix_socket_directories).',
  ],
  [/ENOTFOUND|EAI_AGAIN/, 'unreachable', 'Correct the host name in the URL, or mend name resolution on this machine.'],
  [/EACCES|EPERM/, 'denied', 'Give the user that runs dr access to the socket, or connect over TCP.'],
  [
    /does not support SSL/i,
    'config',
    'The server has TLS switched off: set ssl = on there, or (only on a trusted network) sslmode=disable in the URL.',
  ],
  [
    /CERT|SELF_SIGNED|UNABLE_TO_|ALTNAME|certificate/i,
    'denied',
    "The server's certificate is not trusted: add sslrootcert=/path/to/ca.pem to the URL and use the host name of the certificate; sslmode=no-verify skips the check.",
  ],
  [
    /SASL|must be a string|password/i,
    'denied',
    'The server asks for a password: put it into the URL (from an environment reference), PGPASSWORD or ~/.pgpass.',
  ],
  [
    /timeout expired|ETIMEDOUT/i,
    'unreachable',
    'Nothing answered in time: check host, port, firewall and whether the server is overloaded.',
  ],
];

function identifier(name: string): string {
  return /^[a-z_][a-z0-9_]*$/.test(name) ? name : `"${name.replaceAll('"', '""')}"`;
}
