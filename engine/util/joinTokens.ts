/** `tokens` followed by `ids`. */
export function joinTokens(tokens: Uint32Array, ids: readonly number[]): Uint32Array {
  const all = new Uint32Array(tokens.length + ids.length);
  all.set(tokens);
  all.set(ids, tokens.length);
  return all;
}
