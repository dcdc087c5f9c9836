// The prompts of a hole, in either order, whatever order the product asks an adapter in.

/**
 * Pieces to encode one by one, of `{text, special}`; a model without marks (`fim` undefined) sees what leads to the hole.
 *
 *   prefix first   <prefix> before <suffix> behind <middle>
 *   suffix first   <prefix> <suffix> behind <middle> before
 *
 * @param {{prefix: string, suffix: string, middle: string} | undefined} fim
 * @param {string} order
 * @param {{before: string, behind: string}} around
 * @returns {{text: string, special: boolean}[]}
 */
export function holePieces(fim, order, { before, behind }) {
  const plain = (/** @type {string} */ text) => ({ text, special: false });
  if (fim === undefined) return [plain(before)];
  const [prefix, suffix, middle] = [fim.prefix, fim.suffix, fim.middle].map((text) => ({ text, special: true }));
  return order === "prefix first"
    ? [prefix, plain(before), suffix, plain(behind), middle]
    : [prefix, suffix, plain(behind), middle, plain(before)];
}

/** Every kind of hole in a line, with what is to be written: `[{kind, order, before, behind, answer}]`. */
export function holesOf({ prefix, suffix, line, cut }) {
  const whole = { before: prefix, behind: suffix, answer: line };
  const within = { before: prefix + cut.typed, behind: suffix, answer: cut.rest };
  return [
    { kind: "infill", order: "prefix first", ...whole },
    { kind: "infillSuffixFirst", order: "suffix first", ...whole },
    { kind: "infillWithin", order: "prefix first", ...within },
    { kind: "infillWithinSuffixFirst", order: "suffix first", ...within },
  ];
}
