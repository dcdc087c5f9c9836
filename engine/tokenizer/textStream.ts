/**
 * Token ids in, text out, one at a time.
 */

/** Holds back the bytes of a character that is not complete. */
export interface TextStream {
  /** The text that became complete with `id`; "" while a character waits for more bytes. */
  push(id: number): string;
  /** What was held back, as U+FFFD; "" when nothing was. */
  end(): string;
}

export function textStream(tokenBytes: (id: number) => Uint8Array): TextStream {
  // A stream decoder would swallow a byte order mark, which inside an answer is a character like any other.
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  return {
    push: (id) => decoder.decode(tokenBytes(id), { stream: true }),
    end: () => decoder.decode(),
  };
}
