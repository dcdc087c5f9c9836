/** A completion that was shown: where, and what stood before and after it then. Offsets count UTF-16 units. */
export interface Offer {
  readonly uri: string;
  /** Everything up to the cursor. */
  readonly before: string;
  /** Everything from the cursor on. */
  readonly after: string;
  /** What the completion puts at the cursor. */
  readonly text: string;
}

/**
 * The rest of an offer after the user typed its beginning, or undefined when it no longer fits.
 *
 * Lets ghost text follow the typing with no request and no wait.
 */
export function restOfOffer(offer: Offer, uri: string, before: string, after: string): string | undefined {
  if (uri !== offer.uri || after !== offer.after || !before.startsWith(offer.before)) return undefined;
  const typed = before.slice(offer.before.length);
  if (!offer.text.startsWith(typed)) return undefined;
  const rest = offer.text.slice(typed.length);
  return rest === "" ? undefined : rest;
}
