/** An error in the form of S3; the server sends it as XML with its status. */
export class S3Error extends Error {
  readonly status: number;
  readonly code: string;

  constructor(status: number, code: string, message: string) {
    super(message);
    this.status = status;
    this.code = code;
  }

  toXml(): string {
    return element('Error', { Code: this.code, Message: this.message, RequestId: '0' });
  }
}

type Value = string | number | boolean | undefined | ReadonlyArray<Readonly<Record<string, Value>>>;

/** An XML document of one element; an array becomes repeated elements, undefined nothing. */
export function element(name: string, content: Readonly<Record<string, Value>>): string {
  return `<?xml version="1.0" encoding="UTF-8"?>\n${tag(name, inner(content), ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"')}`;
}

function inner(content: Readonly<Record<string, Value>>): string {
  return Object.entries(content)
    .map(([name, value]) => {
      if (value === undefined) return '';
      if (typeof value === 'object') return value.map((item) => tag(name, inner(item))).join('');
      return tag(name, escapeXml(String(value)));
    })
    .join('');
}

function tag(name: string, content: string, attributes = ''): string {
  return `<${name}${attributes}>${content}</${name}>`;
}

function escapeXml(text: string): string {
  return text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
}

/** The text of every element of that name in a document of a client (flat: no nesting of the same name). */
export function texts(xml: string, name: string): string[] {
  return [...xml.matchAll(new RegExp(`<${name}>([^<]*)</${name}>`, 'g'))].map(([, text = '']) =>
    text.replace(/&(?:#x([0-9a-f]+)|#(\d+)|(lt|gt|amp|quot|apos));/gi, (_, hex, decimal, word: string) =>
      hex !== undefined
        ? String.fromCodePoint(Number.parseInt(hex, 16))
        : decimal !== undefined
          ? String.fromCodePoint(Number(decimal))
          : ({ lt: '<', gt: '>', amp: '&', quot: '"', apos: "'" }[word] ?? ''),
    ),
  );
}
