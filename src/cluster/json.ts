/** JSON as an object. */
export type Json = Readonly<Record<string, unknown>>;

export function isJson(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Equal JSON, whatever the order of the keys. */
export function isSame(a: unknown, b: unknown): boolean {
  if (a === b) return true;
  if (Array.isArray(a) && Array.isArray(b)) return a.length === b.length && a.every((each, i) => isSame(each, b[i]));
  if (!isJson(a) || !isJson(b)) return false;
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length && keys.every((key) => Object.hasOwn(b, key) && isSame(a[key], b[key]));
}

/** What stands raw in JSON and YAML parsers refuse or read as the end of a line, and the byte order mark. */
const notInYaml = /[\u007f-\u009f\u2028\u2029\ufeff\ufffe\uffff]/g;

/** Whole numbers of 16 digits and more: JavaScript's numbers hold them only up to 2^53, objects of a cluster up to 2^63. */
const longNumber = /[:,[]\s*-?\d{16}/;

/** Reads JSON of a cluster. Whole numbers that a number cannot hold are `bigint`, so that they are written again as they were. */
export function parseJson(text: string): unknown {
  // To look at each value costs more than the whole reading without.
  if (!longNumber.test(text)) return JSON.parse(text);
  return JSON.parse(text, (_key, value: unknown, context?: { readonly source?: string }) => {
    const isLost = typeof value === 'number' && !Number.isSafeInteger(value) && /^-?\d+$/.test(context?.source ?? '');
    return isLost ? BigInt(context?.source ?? '') : value;
  });
}

/** Not known to TypeScript yet; Node 22 and newer have it. */
const { rawJSON } = JSON as unknown as { readonly rawJSON?: (text: string) => unknown };

/** JSON as text that is read the same as YAML: that is what API servers do with the body of an apply. */
export function jsonText(value: unknown): string {
  const escaped = (char: string) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`;
  return JSON.stringify(value, (_key, each: unknown) => {
    if (typeof each !== 'bigint') return each;
    return rawJSON ? rawJSON(String(each)) : Number(each);
  }).replace(notInYaml, escaped);
}
