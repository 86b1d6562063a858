import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { sign, type TsigKey, type TsigVerdict, verify } from '../../src/traffic/tsig.ts';
import { encodeName, readMessage, readName, recordData } from '../../src/traffic/wire.ts';

/**
 * One update and its answer as they went between dr and BIND 9.18.49, which accepted the one and signed the other: whatever
 * machine this runs on, both ends of the signature are compared with an implementation that is not ours.
 */
const nowMs = 1_795_424_489_000;
const key: TsigKey = {
  name: 'dr',
  algorithm: 'hmac-sha256',
  // Of a server that lived for a second.
  secret: 'khpe4pXWz6/0wauhpULTg0BAVi/CtzPEYZVbRY7B1Zc=',
};
const request = Buffer.from(
  'e82628000001000100020001076578616d706c6504746573740000060001066f7264657273076578616d706c6504746573740000010001000000000004c000020a066f7264657273076578616d706c65047465737400000100ff000000000000066f7264657273076578616d706c65047465737400000100010000001e0004c633640a0264720000fa00ff00000000003d0b686d61632d7368613235360000006b0400e9012c002019003401' +
    '00a16ba7133f22ba7a7dcaecedb25ad3e31b24c0c27732b15c473267e82600000000',
  'hex',
);
/** The same before it was signed. */
const update = bare(request);
const answer = Buffer.from(
  'e826a8000001000000000001076578616d706c65047465737400000600010264720000fa00ff00000000003d0b686d61632d7368613235360000006b0400e9012c0020b0c0752e4aed03d0b1f2336421b924b7e98f2d99cb2d848d318d651d9b4b8f45e82600000000',
  'hex',
);

describe('a signature', () => {
  it('is the one that BIND accepted', () => {
    const signed = sign(update, key, nowMs);
    expect(signed.message.toString('hex')).toBe(request.toString('hex'));
    // Behind it: original id, error and length of other data, two bytes each.
    expect(signed.mac).toEqual(request.subarray(-38, -6));
    expect(readMessage(signed.message)).toMatchObject({ opcode: 5, last: { name: 'dr', type: 250, class: 255 } });
  });

  it('of BIND is good, and with anything changed it is not', () => {
    const { mac: requestMac } = sign(update, key, nowMs);
    expect(verify(answer, key, requestMac, nowMs)).toEqual({ verdict: 'good' });
    const judged = (bytes: Buffer, other: TsigKey = key, request = requestMac, at = nowMs): TsigVerdict['verdict'] => {
      try {
        return verify(bytes, other, request, at).verdict;
      } catch {
        return 'forged';
      }
    };
    for (let at = 0; at < answer.length; at++) {
      // The id itself is compared when the answer is read; the signature covers the original one.
      if (at < 2) continue;
      for (const bit of [1, 0x20, 0x80]) {
        const changed = Buffer.from(answer);
        changed.writeUInt8(changed.readUInt8(at) ^ bit, at);
        // Names are compared without capitals: 0x20 turns a letter of the key's or algorithm's name into a capital.
        const isLetter = bit === 0x20 && isSameWithoutCapitals(changed, answer, at);
        if (!isLetter) expect(judged(changed), `byte ${at}, bit ${bit}`).not.toBe('good');
      }
    }
    expect(judged(answer, { ...key, secret: Buffer.alloc(32).toString('base64') })).toBe('forged');
    expect(judged(answer, { ...key, name: 'other' })).toBe('forged');
    expect(judged(answer, { ...key, algorithm: 'hmac-sha512' })).toBe('forged');
    expect(judged(answer, key, Buffer.alloc(32))).toBe('forged');
    expect(judged(answer, key, requestMac, nowMs + 301_000)).toBe('forged');
    expect(judged(answer, key, requestMac, nowMs + 300_000)).toBe('good');
    expect(verify(update, key, requestMac, nowMs)).toEqual({ verdict: 'unsigned' });
  });
});

/** The message without its last record. */
function bare(message: Buffer): Buffer {
  const { last } = readMessage(message);
  const cut = Buffer.from(message.subarray(0, last?.start));
  cut.writeUInt16BE(message.readUInt16BE(10) - 1, 10);
  return cut;
}

function isSameWithoutCapitals(a: Buffer, b: Buffer, at: number): boolean {
  const letter = (bytes: Buffer) => String.fromCharCode(bytes.readUInt8(at));
  return /[a-z]/i.test(letter(b)) && letter(a).toLowerCase() === letter(b).toLowerCase();
}

describe('the wire format', () => {
  it('reads back every name, without capitals', () => {
    const label = fc.stringMatching(/^[A-Za-z0-9_-]{1,63}$/);
    fc.assert(
      fc.property(fc.array(label, { maxLength: 3 }), (labels) => {
        const name = labels.join('.');
        const bytes = encodeName(name);
        expect(readName(bytes, 0)).toEqual({ name: name.toLowerCase(), end: bytes.length });
      }),
    );
  });

  it('refuses names that are none', () => {
    for (const wrong of ['a..b', 'a'.repeat(64), Array.from({ length: 64 }, () => 'abcd').join('.')]) {
      expect(() => encodeName(wrong), wrong).toThrow('is no DNS name');
    }
  });

  it('follows compression, and no loop of it', () => {
    const message = Buffer.concat([
      encodeName('example.test'),
      Buffer.from([3, 0x77, 0x77, 0x77, 0xc0, 0]),
      Buffer.from([0xc0, 20]),
    ]);
    expect(readName(message, 14)).toEqual({ name: 'www.example.test', end: 20 });
    expect(() => readName(message, 20)).toThrow('cannot be read');
  });

  it('writes addresses and aliases', () => {
    expect([...recordData('A', '192.0.2.10')]).toEqual([192, 0, 2, 10]);
    expect(recordData('AAAA', '2001:db8::10').toString('hex')).toBe('20010db8000000000000000000000010');
    expect(recordData('CNAME', 'lb.example.net')).toEqual(encodeName('lb.example.net'));
  });

  it('ends on any bytes, with a result or an error', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), fc.boolean(), (bytes, likeAnswer) => {
        const message = Buffer.from(bytes);
        if (likeAnswer && message.length >= 12) answer.copy(message, 0, 0, 12);
        try {
          expect(readMessage(message).rcode).toBeLessThan(16);
          verify(message, key, Buffer.alloc(32), nowMs);
        } catch (error) {
          expect(error).toBeInstanceOf(Error);
        }
      }),
      { numRuns: 2000 },
    );
  });
});
