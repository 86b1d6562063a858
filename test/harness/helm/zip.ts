import { inflateRawSync } from 'node:zlib';

/** The files of a zip archive, read by its directory at the end (APPNOTE 4.3): stored and deflated ones, no ZIP64. */
export function* filesOfZip(zip: Buffer): Generator<{ readonly name: string; readonly content: () => Buffer }> {
  const end = zip.lastIndexOf(Buffer.from('PK\x05\x06'));
  if (end < 0) throw new Error('this is no zip archive');
  let at = zip.readUInt32LE(end + 16);
  for (let left = zip.readUInt16LE(end + 10); left > 0; left--) {
    const [method, packed, header] = [zip.readUInt16LE(at + 10), zip.readUInt32LE(at + 20), zip.readUInt32LE(at + 42)];
    const [nameLength, extraLength, commentLength] = [28, 30, 32].map((offset) => zip.readUInt16LE(at + offset)) as [
      number,
      number,
      number,
    ];
    const name = zip.toString('utf8', at + 46, at + 46 + nameLength);
    const begin = header + 30 + zip.readUInt16LE(header + 26) + zip.readUInt16LE(header + 28);
    const bytes = zip.subarray(begin, begin + packed);
    yield { name, content: () => (method === 0 ? bytes : inflateRawSync(bytes)) };
    at += 46 + nameLength + extraLength + commentLength;
  }
}
