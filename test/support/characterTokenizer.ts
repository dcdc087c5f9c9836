/**
 * A tokenizer whose tokens are characters, so that a test of prompts can read what it gets. Marks are one token each.
 */

import type { EncodeInput } from "../../engine/tokenizer/tokenizer";

const characters = 0x110000;
const newline = 10;

export interface CharacterTokenizer {
  readonly chatTemplate: string;
  readonly eosIds: readonly number[];
  readonly bosId: number | undefined;
  readonly lines: { readonly newlines: Uint8Array; readonly endsLine: Uint8Array };
  id(name: string): number | undefined;
  markText(id: number | undefined): string;
  encode(inputs: readonly EncodeInput[]): Promise<Uint32Array[]>;
  /** Marks that were recognised stand between ⟦ and ⟧, unlike text that only looks like them. */
  show(tokens: Uint32Array): string;
}

export function characterTokenizer(options: {
  readonly marks: readonly string[];
  readonly eos: string;
  readonly bos?: string;
  readonly chatTemplate: string;
}): CharacterTokenizer {
  const ids = new Map(options.marks.map((mark, at) => [mark, characters + at]));
  const names = new Map([...ids].map(([mark, id]) => [id, mark]));
  const lineEnds = new Uint8Array(characters + options.marks.length);
  lineEnds[newline] = 1;

  const encodeOne = ({ text, special }: EncodeInput): Uint32Array => {
    const found: number[] = [];
    for (let at = 0; at < text.length;) {
      const mark = special ? options.marks.find((each) => text.startsWith(each, at)) : undefined;
      const point = text.codePointAt(at) ?? 0;
      found.push(mark === undefined ? point : (ids.get(mark) ?? 0));
      at += mark?.length ?? (point > 0xffff ? 2 : 1);
    }
    return Uint32Array.from(found);
  };

  return {
    chatTemplate: options.chatTemplate,
    eosIds: [ids.get(options.eos) ?? 0],
    bosId: options.bos === undefined ? undefined : ids.get(options.bos),
    lines: { newlines: lineEnds, endsLine: lineEnds },
    id: (name) => ids.get(name),
    markText: (id) => (id === undefined ? "" : (names.get(id) ?? "")),
    encode: (inputs) => Promise.resolve(inputs.map(encodeOne)),
    show: (tokens) =>
      [...tokens]
        .map((token) => (names.has(token) ? `⟦${names.get(token) ?? ""}⟧` : String.fromCodePoint(token)))
        .join(""),
  };
}
