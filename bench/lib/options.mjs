// Words of a command line → options.

/** `--key value` pairs; a key without a value is true. */
export function parseOptions(words) {
  const parsed = {};
  for (let i = 0; i < words.length; i += 1) {
    const word = words[i];
    if (!word.startsWith("--")) throw new Error(`Unexpected argument ${word}.`);
    const next = words[i + 1];
    const hasValue = next !== undefined && !next.startsWith("--");
    parsed[word.slice(2)] = hasValue ? next : true;
    if (hasValue) i += 1;
  }
  return parsed;
}

/** "I/N" → {at, of}: share I of N, counted from 0. */
export function parseShard(text) {
  const [, at, of] = /^(\d+)\/(\d+)$/.exec(text) ?? [];
  if (of === undefined || Number(at) >= Number(of)) throw new Error(`${text} is no share: say 0/4, 1/4, 2/4 or 3/4.`);
  return { at: Number(at), of: Number(of) };
}
