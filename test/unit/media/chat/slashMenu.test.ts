import { expect, it } from "vitest";
import { matching } from "../../../../media/chat/slashMenu";

const commands = [
  ["explain", "a"],
  ["fix", "b"],
] as const;

it("lists commands while a slash and a beginning are all there is", () => {
  expect(matching(commands, "/")).toHaveLength(2);
  expect(matching(commands, "/f")).toEqual([["fix", "b"]]);
  for (const text of ["", "fix", "/fix it", " /f", "/x"]) expect(matching(commands, text)).toEqual([]);
});
