import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';

/** Something that the shape of the code does not allow. */
export interface Offence {
  /** Path from the root of the repository. */
  readonly file: string;
  readonly line: number;
  readonly rule: string;
}

interface Import {
  readonly from: string;
  readonly to: string;
  readonly line: number;
  readonly typesOnly: boolean;
}

const longestFile = 350;
const adapters = ['vault', 'postgres', 'traffic', 'cluster'];

/** For each room of src/, the rooms it may import from; `types` only as types. */
const rooms: Readonly<Record<string, { readonly values: readonly string[]; readonly types?: readonly string[] }>> = {
  base: { values: [] },
  config: { values: ['base'] },
  vault: { values: ['base'], types: ['config'] },
  postgres: { values: ['base'], types: ['config'] },
  traffic: { values: ['base'], types: ['config'] },
  cluster: { values: ['base'], types: ['config'] },
  backup: { values: ['base', 'config', ...adapters] },
  steps: { values: ['base', 'config', ...adapters, 'backup'], types: ['runbook'] },
  runbook: { values: ['base', 'config', ...adapters, 'backup', 'steps'] },
  daemon: { values: ['base', 'config', ...adapters, 'backup', 'steps', 'runbook'], types: ['report'] },
  report: { values: ['base', 'config'], types: [...adapters, 'backup', 'steps', 'runbook', 'daemon'] },
  commands: { values: ['base', 'config', ...adapters, 'backup', 'steps', 'runbook', 'daemon', 'report'] },
  main: { values: ['base', 'config', ...adapters, 'backup', 'steps', 'runbook', 'daemon', 'report', 'commands'] },
};

/** What only `src/main.ts` touches, and printing, which only it and the commands' terminal do. */
const effects: ReadonlyArray<{ readonly pattern: RegExp; readonly rule: string; readonly allowed: readonly string[] }> =
  [
    {
      pattern: /\bprocess\.(argv|env|exit|exitCode|abort)\b/,
      rule: 'only src/main.ts touches arguments, environment and exit code: hand down what is needed',
      // The server's process gets a few of our variables and nothing else: that list stands where it is started.
      allowed: ['src/main.ts', 'src/postgres/server-process.ts'],
    },
    {
      pattern: /\bprocess\.(on|once|addListener)\(\s*['"]SIG/,
      rule: 'only src/main.ts listens to signals: take an AbortSignal',
      allowed: ['src/main.ts'],
    },
    {
      pattern: /\bconsole\.|\bprocess\.(stdout|stderr)\b/,
      rule: 'only src/main.ts and the log write: give results back, or log',
      allowed: ['src/main.ts', 'src/base/log.ts'],
    },
  ];

/** Reads all of `src/` below `root` and lists what is not allowed, in order of the files. */
export function checkArchitecture(root: string): Offence[] {
  const files = sourceFiles(join(root, 'src'));
  const imports = files.flatMap((file) => importsOf(file));
  const name = (file: string) => relative(root, file);
  const offences: Offence[] = [];
  for (const file of files) offences.push(...checkFile(file, name(file)));
  for (const edge of imports) {
    const rule = forbidden(name(edge.from), name(edge.to), edge);
    if (rule !== undefined) offences.push({ file: name(edge.from), line: edge.line, rule });
  }
  for (const circle of circles(imports)) {
    const [first] = circle;
    if (first)
      offences.push({
        file: name(first),
        line: 1,
        rule: `circular import: ${[...circle, first].map(name).join(' → ')}`,
      });
  }
  return offences.sort((a, b) => a.file.localeCompare(b.file) || a.line - b.line);
}

function checkFile(file: string, name: string): Offence[] {
  const offences: Offence[] = [];
  const source = readFileSync(file, 'utf8');
  const length = source.split('\n').length - 1;
  if (length > longestFile) {
    offences.push({
      file: name,
      line: length,
      rule: `${length} lines, more than ${longestFile}: it holds two things, part them`,
    });
  }
  if (!rooms[roomOf(name)])
    offences.push({ file: name, line: 1, rule: `no room of design.md: known are ${Object.keys(rooms).join(', ')}` });
  withoutComments(source)
    .split('\n')
    .forEach((line, i) => {
      for (const { pattern, rule, allowed } of effects) {
        if (pattern.test(line) && !allowed.includes(name)) offences.push({ file: name, line: i + 1, rule });
      }
    });
  return offences;
}

/** Why this import is not allowed; undefined when it is. */
function forbidden(from: string, to: string, edge: Import): string | undefined {
  if (!existsSync(edge.to)) return `imports ${to}, which does not exist`;
  if (!to.startsWith('src/')) return `imports ${to}: the product stands on src/ alone`;
  const [room, other] = [roomOf(from), roomOf(to)];
  const rule = rooms[room];
  if (room === other || rule === undefined || rule.values.includes(other)) return undefined;
  if (rule.types?.includes(other)) {
    return edge.typesOnly ? undefined : `${room} may import only types from ${other} (${to}): write "import type"`;
  }
  if (adapters.includes(room) && adapters.includes(other))
    return `adapters never import each other: ${room} imports ${to}`;
  return `imports point one way: ${room} may import from ${rule.values.join(', ') || 'nothing'}, not from ${other} (${to})`;
}

function roomOf(name: string): string {
  const [, room = ''] = name.split('/');
  return room.replace(/\.ts$/, '');
}

function sourceFiles(directory: string): string[] {
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith('.ts'))
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
}

/** The relative imports of a file: static, re-exported, dynamic, and workers started by URL. */
function importsOf(file: string): Import[] {
  const source = withoutComments(readFileSync(file, 'utf8'));
  const imports: Import[] = [];
  const add = (index: number, path: string, typesOnly: boolean) => {
    if (!path.startsWith('.')) return;
    imports.push({
      from: file,
      to: join(dirname(file), path),
      line: source.slice(0, index).split('\n').length,
      typesOnly,
    });
  };
  const statement =
    /^[ \t]*(?:import|export)\s+(type\s+)?((?:[\w*$]+(?:\s+as\s+\w+)?\s*,?\s*)?(?:\{[^}]*\})?)\s*from\s*['"]([^'"]+)['"]/gm;
  for (const match of source.matchAll(statement)) {
    const names =
      /\{([^}]*)\}/
        .exec(match[2] ?? '')?.[1]
        ?.split(',')
        .map((part) => part.trim())
        .filter(Boolean) ?? [];
    const onlyTypes =
      names.length > 0 && names.every((part) => part.startsWith('type ')) && (match[2] ?? '').trim().startsWith('{');
    add(match.index, match[3] ?? '', match[1] !== undefined || onlyTypes);
  }
  for (const match of source.matchAll(/^[ \t]*import\s*['"]([^'"]+)['"]/gm)) add(match.index, match[1] ?? '', false);
  for (const match of source.matchAll(/\bimport\(\s*['"]([^'"]+)['"]\s*\)/g)) add(match.index, match[1] ?? '', false);
  for (const match of source.matchAll(/new URL\([\s\S]{0,120}?['"](\.\.?\/[^'"]+\.ts)['"]/g))
    add(match.index, match[1] ?? '', false);
  return imports;
}

/** The source with comments blanked out, line numbers kept; strings that hold `//` stay as they are. */
function withoutComments(source: string): string {
  const token = /'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|`(?:\\.|[^`\\])*`|\/\/[^\n]*|\/\*[\s\S]*?\*\//g;
  return source.replace(token, (found) => (found.startsWith('/') ? found.replace(/[^\n]/g, ' ') : found));
}

/** Circles among imports that exist at run time: each once, as the files it goes through. */
function circles(imports: readonly Import[]): string[][] {
  const next = new Map<string, string[]>();
  for (const { from, to, typesOnly } of imports) {
    if (!typesOnly && from !== to) next.set(from, [...(next.get(from) ?? []), to]);
  }
  const found = new Map<string, string[]>();
  const done = new Set<string>();
  const visit = (file: string, path: string[]): void => {
    const start = path.indexOf(file);
    if (start >= 0) {
      const circle = path.slice(start);
      found.set([...circle].sort().join(), circle);
      return;
    }
    if (done.has(file)) return;
    for (const target of next.get(file) ?? []) visit(target, [...path, file]);
    done.add(file);
  };
  for (const file of next.keys()) visit(file, []);
  return [...found.values()];
}
