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
