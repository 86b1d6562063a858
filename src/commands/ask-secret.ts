import { StringDecoder } from 'node:string_decoder';

/** Standard input of a terminal, as far as a secret is read from it. */
export interface SecretInput {
  setRawMode(raw: boolean): unknown;
  resume(): unknown;
  pause(): unknown;
  on(event: 'data', listener: (chunk: Buffer) => void): unknown;
  on(event: 'end', listener: () => void): unknown;
  off(event: 'data', listener: (chunk: Buffer) => void): unknown;
  off(event: 'end', listener: () => void): unknown;
}

/**
 * Asks for a secret on a terminal and shows nothing of what is typed. Backspace takes back a character, Ctrl-U everything; Ctrl-C calls
 * `onInterrupt` (in raw mode it is no signal) and, like Ctrl-D on an empty line, gives up: rejects.
 */
export async function askSecret(
  question: string,
  input: SecretInput,
  output: { write(text: string): unknown },
  options: { readonly onInterrupt: () => void; readonly signal: AbortSignal },
): Promise<string> {
  options.signal.throwIfAborted();
  // Raw before the question is there: what somebody types at once is not shown either.
  input.setRawMode(true);
  output.write(question);
  input.resume();
  try {
    return await new Promise<string>((resolve, reject) => {
      const decoder = new StringDecoder('utf8');
      let typed: string[] = [];
      const stopped = () => finish(() => reject(options.signal.reason));
      const ended = () => finish(() => reject(new Error('the terminal was closed')));
      const finish = (outcome: () => void) => {
        input.off('data', read);
        input.off('end', ended);
        options.signal.removeEventListener('abort', stopped);
        outcome();
      };
      const read = (chunk: Buffer) => {
        for (const character of decoder.write(chunk)) {
          if (character === '\r' || character === '\n') return finish(() => resolve(typed.join('')));
          if (character === '\u0003') {
            finish(() => reject(new Error('interrupted')));
            return options.onInterrupt();
          }
          if (character === '\u0004' && typed.length === 0) return ended();
          if (character === '\u007f' || character === '\b') typed.pop();
          else if (character === '\u0015') typed = [];
          else if (character >= ' ') typed.push(character);
        }
      };
      input.on('data', read);
      input.on('end', ended);
      options.signal.addEventListener('abort', stopped);
    });
  } finally {
    input.setRawMode(false);
    input.pause();
    output.write('\n');
  }
}
