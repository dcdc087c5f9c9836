/** What a filter gets and gives: the text on offer and where it is to go. */

import type { Shape } from "../shape";

export interface Offer {
  readonly text: string;
  /** All text before and after the cursor. */
  readonly before: string;
  readonly after: string;
  readonly shape: Shape;
  /** Whether the model had more to say. */
  readonly cutShort: boolean;
}

/** Returns the text to go on with; "" withdraws the offer. */
export type Filter = (offer: Offer) => string;
