/** One element: its text (entities decoded, trimmed) and its children. Attributes are skipped: the API uses none but xmlns. */
export interface XmlElement {
  readonly name: string;
  text: string;
  readonly children: XmlElement[];
}

/** Parses a request body of the Route 53 API: elements and text, no CDATA, no DTD. Throws on anything not well formed. */
export function parseXml(source: string): XmlElement {
  const root: XmlElement = { name: '', text: '', children: [] };
  const open: XmlElement[] = [root];
  const token = /<\?[^>]*\?>|<(\/?)([A-Za-z_][\w.-]*)(?:\s[^<>]*?)?(\/?)>|([^<]+)/gy;
  let at = 0;
  while (at < source.length) {
    token.lastIndex = at;
    const match = token.exec(source);
    if (!match) throw new Error(`not well formed at offset ${at}`);
    at = token.lastIndex;
    const [, closing, name, empty, text] = match;
    const top = open[open.length - 1] ?? root;
    if (text !== undefined) top.text += unescapeText(text);
    else if (name !== undefined && closing) {
      if (top.name !== name) throw new Error(`</${name}> closes <${top.name}>`);
      top.text = top.text.trim();
      open.pop();
    } else if (name !== undefined) {
      const element: XmlElement = { name, text: '', children: [] };
      top.children.push(element);
      if (!empty) open.push(element);
    }
  }
  const document = root.children[0];
  if (open.length !== 1 || root.children.length !== 1 || document === undefined)
    throw new Error('not one closed document element');
  return document;
}

export function child(element: XmlElement | undefined, name: string): XmlElement | undefined {
  return element?.children.find((candidate) => candidate.name === name);
}

/** What `writeXml` takes: text, nested elements by name, or a list that repeats the name. Undefined members are left out. */
export type XmlValue =
  | string
  | number
  | boolean
  | { readonly [name: string]: XmlValue | undefined }
  | readonly XmlValue[];

export function writeXml(name: string, value: XmlValue): string {
  if (Array.isArray(value)) return value.map((item: XmlValue) => writeXml(name, item)).join('');
  if (typeof value !== 'object') return `<${name}>${escapeText(String(value))}</${name}>`;
  const inner = Object.entries(value)
    .map(([key, member]: [string, XmlValue | undefined]) => (member === undefined ? '' : writeXml(key, member)))
    .join('');
  return `<${name}>${inner}</${name}>`;
}

function escapeText(text: string): string {
  return text.replace(/[&<>"]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c] ?? c);
}

function unescapeText(text: string): string {
  const named: Record<string, string> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" };
  return text.replace(/&(?:#x([0-9a-f]+)|#(\d+)|([a-z]+));/gi, (_, hex?: string, decimal?: string, name?: string) => {
    if (hex !== undefined) return String.fromCodePoint(Number.parseInt(hex, 16));
    if (decimal !== undefined) return String.fromCodePoint(Number(decimal));
    const char = named[name ?? ''];
    if (char === undefined) throw new Error(`unknown entity &${name};`);
    return char;
  });
}
