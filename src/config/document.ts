import {
  isAlias,
  isMap,
  isScalar,
  isSeq,
  LineCounter,
  type Node,
  type Pair,
  parseDocument,
  type Scalar,
  visit,
} from 'yaml';
import { messageOf } from '../base/errors.ts';
import { redact, registerSecret } from '../base/redact.ts';
import type { ConfigProblem, KeyPath } from './problems.ts';
import { parseDatabaseUrl } from './scalars.ts';

/** What the environment gives: `process.env` in the program, a plain object in tests. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** A configuration file that has been read: plain values, and where each of them stands. */
export interface ConfigDocument {
  /** The file as plain values with references expanded; undefined when the YAML cannot be read at all. */
  readonly value: unknown;
  readonly problems: readonly ConfigProblem[];
  readonly warnings: readonly ConfigProblem[];
  /** Position of a value, or (with `key`) of the key named last in the path; the nearest container when there is none. */
  locate(
    path: KeyPath,
    what?: 'key' | 'value',
  ): { readonly line: number | undefined; readonly column: number | undefined };
}

/** Parses YAML 1.2, refuses duplicate keys, and expands `${NAME}`, `${NAME:-default}` and `$${` in all text values. */
export function readDocument(text: string, env: Environment): ConfigDocument {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, uniqueKeys: true });
  const at = (offset: number | undefined) => {
    const position = offset === undefined ? undefined : lines.linePos(offset);
    return { line: position?.line, column: position?.col };
  };
  const locate: ConfigDocument['locate'] = (path, what = 'value') => at(offsetOf(document.contents, path, what));

  const problems: ConfigProblem[] = document.errors.map((error) => {
    const position = at(error.pos[0]);
    return { path: [], reason: `${yamlReason(error.code, error.message)}${excerpt(text, position.line)}`, ...position };
  });
  if (problems.length > 0) return { value: undefined, problems, warnings: [], locate };
  if (document.contents === null) {
    const reason = 'the file is empty: begin with config/dr.yaml, which comes with dr';
    return { value: undefined, problems: [{ path: [], reason, line: 1, column: 1 }], warnings: [], locate };
  }

  const warnings: ConfigProblem[] = [];
  const seen = new Set<Scalar>();
  visit(document, {
    Scalar(_, node, ancestors) {
      if (typeof node.value !== 'string' || seen.has(node)) return;
      const parent = ancestors.at(-1);
      const pair = parent && 'key' in parent ? (parent as Pair) : undefined;
      if (pair?.key === node) return;
      seen.add(node);
      const path = pathOf([...ancestors, node]);
      const place = at(node.range?.[0]);
      const written = node.value;
      const expanded = expand(written, env);
      for (const reason of expanded.missing) problems.push({ path, reason, ...place });
      node.value = expanded.text;
      const secret = hideSecrets(path, expanded.text, expanded.names > 0);
      if (secret && expanded.names === 0) {
        warnings.push({
          path,
          reason: 'a secret stands in the file: put it into the environment and write ${NAME}',
          ...place,
        });
      }
      if (/AGE-SECRET-KEY-/i.test(expanded.text)) problems.push({ path, reason: identityInFile, ...place });
    },
  });
  // Also in comments and keys: whoever reads the file, or the copy of it in every vault, could open all vaults.
  if (!problems.some((problem) => problem.reason === identityInFile)) {
    const found = text.search(/AGE-SECRET-KEY-(PQ-)?1[0-9A-Z]{20}/i);
    if (found >= 0) problems.push({ path: [], reason: identityInFile, ...at(found) });
  }
  try {
    return { value: withoutNulls(document.toJS({ maxAliasCount: 100 })), problems, warnings, locate };
  } catch (error) {
    const reason = `cannot be read: ${redact(messageOf(error))}`;
    return { value: undefined, problems: [...problems, { path: [], reason, line: 1, column: 1 }], warnings, locate };
  }
}

const identityInFile =
  'a decryption identity (AGE-SECRET-KEY…) stands here: remove it, make a new identity and treat this one as known to others. ' +
  'The file holds only public keys (age1…); the identity is given by --identity FILE or $DR_IDENTITY_FILE';

function yamlReason(code: string, message: string): string {
  if (code === 'DUPLICATE_KEY') return 'this key stands twice in the same place: remove one';
  if (code === 'TAB_AS_INDENT') return 'a tab is used as indentation: YAML wants spaces';
  if (code === 'MULTIPLE_DOCS') return 'the file holds several YAML documents: keep one';
  return `this is not YAML: ${message.replace(/\.$/, '')}`;
}

/** The line in question, as a person finds it again; secrets replaced. */
function excerpt(text: string, line: number | undefined): string {
  const content = line === undefined ? undefined : text.split(/\r?\n/)[line - 1]?.trim();
  return content ? `: ${redact(content.length > 80 ? `${content.slice(0, 80)}…` : content)}` : '';
}

/** `names` counts the references; `missing` has a sentence for each that the environment does not hold. */
function expand(written: string, env: Environment): { text: string; names: number; missing: string[] } {
  const missing: string[] = [];
  let names = 0;
  const text = written.replace(/\$(\$)?\{([^}]*)\}/g, (whole, escaped: string | undefined, inner: string) => {
    if (escaped !== undefined) return whole.slice(1);
    const match = /^([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?$/s.exec(inner);
    const variable = match?.[1];
    if (variable === undefined) {
      missing.push(
        `"${whole}" is no reference: write \${NAME} or \${NAME:-default}, and $\${ for the characters themselves`,
      );
      return '';
    }
    names++;
    const value = env[variable];
    if (value !== undefined && value !== '') return value;
    const otherwise = match?.[2];
    if (otherwise === undefined) {
      missing.push(
        `the environment variable ${variable} is ${value === '' ? 'empty' : 'not set'}: set it before dr starts`,
      );
    }
    return otherwise ?? '';
  });
  return { text, names, missing };
}

/** Makes sure that no message shows this value, or the password in it; true when there is a secret in it. */
function hideSecrets(path: KeyPath, value: string, fromEnvironment: boolean): boolean {
  const key = path.at(-1);
  if (typeof key === 'string' && /password|secret|token|passphrase/i.test(key)) {
    registerSecret(value);
    return value !== '';
  }
  const url =
    parseDatabaseUrl(value) ?? (/:\/\/[^/]*@/.test(value) && URL.canParse(value) ? new URL(value) : undefined);
  const passwords = [url?.password, url?.searchParams.get('password'), url?.searchParams.get('sslpassword')].filter(
    (word) => !!word,
  );
  for (const password of passwords) {
    if (!password) continue;
    registerSecret(password);
    registerSecret(decoded(password));
  }
  // A whole URL from the environment is registered too: its parts may be asked for in ways that no pattern foresees.
  if (passwords.length > 0 && fromEnvironment) registerSecret(value);
  return passwords.length > 0;
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** `data:` with nothing below it means that there is none; lists keep their holes, which are mistakes. */
function withoutNulls(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutNulls);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, inner]) => inner !== null)
      .map(([key, inner]) => [key, withoutNulls(inner)]),
  );
}

function keyText(key: unknown): string {
  return isScalar(key) ? String(key.value) : String(key);
}

/** The keys along this chain of nodes, from the top to the value. */
function pathOf(chain: readonly unknown[]): KeyPath {
  const path: (string | number)[] = [];
  chain.forEach((node, i) => {
    if (typeof node === 'object' && node !== null && 'key' in node && !isScalar(node)) path.push(keyText(node.key));
    else if (isSeq(node)) {
      const next = chain[i + 1];
      const index = node.items.indexOf(next);
      if (index >= 0) path.push(index);
    }
  });
  return path;
}

function offsetOf(root: Node | null, path: KeyPath, what: 'key' | 'value'): number | undefined {
  let node: unknown = root;
  let offset = root?.range?.[0];
  for (const [i, key] of path.entries()) {
    if (isAlias(node)) return offset;
    if (isMap(node)) {
      const pair = node.items.find((item) => keyText(item.key) === String(key));
      if (pair === undefined) return offset;
      if (isScalar(pair.key)) offset = pair.key.range?.[0] ?? offset;
      if (i === path.length - 1 && what === 'key') return offset;
      node = pair.value;
      if (isScalar(node)) offset = node.range?.[0] ?? offset;
    } else if (isSeq(node) && typeof key === 'number') {
      node = node.items[key];
      if (isScalar(node) || isMap(node)) offset = node.range?.[0] ?? offset;
    } else return offset;
  }
  return offset;
}
