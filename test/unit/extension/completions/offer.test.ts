import { describe, expect, it } from "vitest";
import { restOfOffer, type Offer } from "../../../../extension/completions/offer";

const offer: Offer = { uri: "file:///a.ts", before: "const a = ", after: "\nend", text: "read(file);" };

describe("an offer that is typed through", () => {
  it("keeps its rest, letter by letter", () => {
    for (let typed = 0; typed < offer.text.length; typed += 1) {
      const before = offer.before + offer.text.slice(0, typed);
      expect(restOfOffer(offer, offer.uri, before, offer.after)).toBe(offer.text.slice(typed));
    }
  });

  it("ends when all of it was typed", () => {
    expect(restOfOffer(offer, offer.uri, offer.before + offer.text, offer.after)).toBeUndefined();
  });

  it.each([
    ["another letter was typed", offer.uri, "const a = w", offer.after],
    ["something was deleted", offer.uri, "const a =", offer.after],
    ["the text after the cursor changed", offer.uri, "const a = r", ")\nend"],
    ["it is another file", "file:///b.ts", "const a = r", offer.after],
  ])("ends when %s", (_, uri, before, after) => {
    expect(restOfOffer(offer, uri, before, after)).toBeUndefined();
  });
});
