import { isJson, type Json } from '../../cluster/json.ts';

/**
 * JSON as YAML, with sorted keys: what of YAML 1.1 (kubectl) and 1.2 mean the same. The library that reads YAML can write it too, but
 * builds a tree of nodes for it: for ten thousand objects that is most of the time and memory of a backup.
 */
export function yamlText(value: unknown): string {
  const lines: string[] = [];
  if (isJson(value) && hasEntries(value)) writeMap(value, '', '', lines);
  else if (Array.isArray(value) && value.length > 0) writeList(value, '', '', lines);
  else lines.push(scalarText(value, ''));
  return `${lines.join('\n')}\n`;
}

/** `first`: what stands before the first line (`- ` of a list); `indent`: before all others. */
function writeMap(map: Json, first: string, indent: string, lines: string[]): void {
  let before = first;
  for (const key of Object.keys(map).sort()) {
    const value = map[key];
    if (value === undefined) continue;
    const name = keyText(key);
    // A key on its own line may have any length, one before a colon at most 1024 characters.
    const head = name.length > MOST_KEY ? `${before}? ${name}\n${indent}:` : `${before}${name}:`;
    before = indent;
    if (isJson(value) && hasEntries(value)) {
      lines.push(head);
      writeMap(value, `${indent}  `, `${indent}  `, lines);
    } else if (Array.isArray(value) && value.length > 0) {
      lines.push(head);
      writeList(value, `${indent}  `, `${indent}  `, lines);
    } else lines.push(`${head} ${scalarText(value, indent)}`);
  }
}

function writeList(list: readonly unknown[], first: string, indent: string, lines: string[]): void {
  let before = first;
  for (const value of list) {
    if (isJson(value) && hasEntries(value)) writeMap(value, `${before}- `, `${indent}  `, lines);
    else if (Array.isArray(value) && value.length > 0) writeList(value, `${before}- `, `${indent}  `, lines);
    else lines.push(`${before}- ${scalarText(value, indent)}`);
    before = indent;
  }
}

const MOST_KEY = 1000;

function hasEntries(map: Json): boolean {
  for (const key in map) if (map[key] !== undefined) return true;
  return false;
}

/** `indent`: of what the value belongs to; its own lines stand two further in. */
function scalarText(value: unknown, indent: string): string {
  if (typeof value === 'string')
    return value.includes('\n') && isBlock(value) ? blockText(value, indent) : lineText(value);
  if (Array.isArray(value)) return '[]';
  if (isJson(value)) return '{}';
  return typeof value === 'bigint' ? String(value) : JSON.stringify(value ?? null);
}

function keyText(key: string): string {
  return lineText(key);
}

/** Words that no YAML takes for anything but text. */
const plain = /^[A-Za-z_/][\w./@+=~-]*(?:[ :][\w./@+=~-]+)*$/;
const reserved = /^(?:y|n|yes|no|on|off|true|false|null)$/i;
/** What JSON leaves as it is, and YAML wants escaped. */
const unprintable = /[\u007f-\u009f\u2028\u2029\ufeff\ufffe\uffff]/g;

function lineText(text: string): string {
  if (plain.test(text) && !reserved.test(text)) return text;
  return JSON.stringify(text).replace(unprintable, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

/** What a literal block can hold as it is: lines of printable characters, at least one of them with more than white space. */
function isBlock(text: string): boolean {
  return text.isWellFormed() && /\S/.test(text) && !notInBlock.test(text);
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const notInBlock = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u2028\u2029\ufeff\ufffe\uffff]/;

function blockText(text: string, indent: string): string {
  const body = text.replace(/\n+$/, '');
  const ends = text.length - body.length;
  // Where the text itself begins with white space the indentation has to be said.
  const size = /^\s/.test(text) ? '2' : '';
  const end = ends === 0 ? '-' : ends === 1 ? '' : '+';
  const inner = body
    .split('\n')
    .map((line) => (line === '' ? '' : `${indent}  ${line}`))
    .join('\n');
  return `|${size}${end}\n${inner}${'\n'.repeat(Math.max(0, ends - 1))}`;
}
