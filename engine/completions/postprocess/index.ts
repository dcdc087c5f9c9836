/** The filters an offer goes through, in this order. One that returns "" ends it. */

import { cutRepetition } from "./cutRepetition";
import { cutUnfinishedLine } from "./cutUnfinishedLine";
import { dropWorthless } from "./dropWorthless";
import { joinSpace } from "./joinSpace";
import { keepFirstLine } from "./keepFirstLine";
import type { Filter, Offer } from "./offer";
import { stayInBlock } from "./stayInBlock";
import { trimSuffixOverlap } from "./trimSuffixOverlap";

const filters: readonly Filter[] = [
  keepFirstLine,
  joinSpace,
  cutUnfinishedLine,
  stayInBlock,
  cutRepetition,
  trimSuffixOverlap,
  dropWorthless,
];

export function postprocess(offer: Offer): string {
  let text = offer.text;
  for (const filter of filters) {
    if (text === "") break;
    text = filter({ ...offer, text });
  }
  return text;
}
