import * as fs from "node:fs";
import * as path from "node:path";
import { describe, expect, it } from "vitest";
import { postprocess } from "../../../../../engine/completions/postprocess/index";
import type { Shape } from "../../../../../engine/completions/shape";

/**
 * Golden cases: one file each. The text before the cursor, `<<`, what the model wrote, `>>`, the text after. Then a
 * line of dashes and what is offered. First line: the shape, and "cut" when the model had more to say.
 * UPDATE_GOLDEN=1 writes what is offered now.
 */
const folder = path.join(__dirname, "../../../../golden/completions");
const rule = "\n----\n";

describe("postprocess", () => {
  const files = fs.readdirSync(folder).filter((name) => name.endsWith(".txt"));

  it("has cases", () => {
    expect(files.length).toBeGreaterThan(10);
  });

  it.each(files)("%s", (name) => {
    const file = path.join(folder, name);
    const content = fs.readFileSync(file, "utf8");
    const firstEnd = content.indexOf("\n");
    const [shape, cut] = content.slice(0, firstEnd).split(" ");
    const [scene = "", offered = ""] = content.slice(firstEnd + 1).split(rule);
    const [before = "", rest = ""] = scene.split("<<");
    const [text = "", after = ""] = rest.split(">>");
    const offer = postprocess({ text, before, after, shape: shape as Shape, cutShort: cut === "cut" });
    if (process.env["UPDATE_GOLDEN"] === "1") {
      fs.writeFileSync(file, `${content.slice(0, firstEnd + 1)}${scene}${rule}${offer}\n`);
      return;
    }
    expect(offer).toBe(offered.replace(/\n$/, ""));
  });

  it("never offers text that the model did not write", () => {
    const alphabet = ["a", "b", "{", "}", "\n", "  ", "(", ")", "return x;"];
    const random = (length: number): string =>
      Array.from({ length }, () => alphabet[Math.floor(Math.random() * alphabet.length)]).join("");
    for (let round = 0; round < 2_000; round++) {
      const text = random(12);
      const shape: Shape = round % 2 === 0 ? "line" : "lines";
      const offer = postprocess({ text, before: random(6), after: random(6), shape, cutShort: round % 3 === 0 });
      // Of its spaces the first may be missing: they stand before the cursor already.
      expect(text.startsWith(offer) || text.trimStart().startsWith(offer)).toBe(true);
    }
  });
});
