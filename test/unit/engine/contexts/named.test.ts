import { describe, expect, it } from "vitest";
import { blocksNamed } from "../../../../engine/contexts/named";
import { SegmentText } from "../../../../engine/contexts/segmentText";
import { random, testSeed } from "../../../support/random";

const blockTokens = 64;

/** A token a byte, as the simplest vocabulary has it, but for id 256. */
const words = [...Array.from({ length: 256 }, (_, byte) => Buffer.of(byte)), Buffer.from("export ")];
const table = {
  bytes: new Uint8Array(Buffer.concat(words)),
  offsets: Uint32Array.from([...Array.from({ length: 257 }, (_, id) => id), 256 + "export ".length]),
};

const textOf = (text: string): SegmentText => new SegmentText(Uint32Array.from(Buffer.from(text)), table, blockTokens);
const segment = (key: string, text: string) => ({ key, text: textOf(text) });
const asked = (text: string, sure = true) => ({ text, sure });
const definesIn = (line: string, name: string): boolean =>
  textOf(`first\n${line}\nlast\n`)
    .mentions(name, 9)
    .some(({ defines }) => defines);

describe("SegmentText", () => {
  it("finds whole words alone, wherever blocks end", () => {
    const draw = random(testSeed());
    const gaps = Array.from({ length: 40 }, () => "x".repeat(draw.between(0, 200)));
    const text = gaps.map((gap) => `${gap}\nconst wanted = 1; wantedNot unwanted wanted2\n`).join("");
    const found = textOf(text).mentions("wanted", 1_000);
    expect(found).toHaveLength(gaps.length);
    let at = -1;
    for (const { from, to } of found) {
      at = text.indexOf("const wanted = 1", at + 1);
      expect(from).toBe(Math.floor(at / blockTokens));
      // The line, and some of what follows.
      expect(to * blockTokens).toBeGreaterThanOrEqual(Math.min(at + "const wanted".length + 80, text.length));
      expect(to).toBeLessThanOrEqual(Math.ceil(text.length / blockTokens));
    }
    expect(textOf(text).mentions("wanted", 3)).toHaveLength(3);
    expect(textOf(text).mentions("", 3)).toEqual([]);
    expect(textOf("").mentions("wanted", 3)).toEqual([]);
  });

  it("knows where blocks are although tokens write several bytes, or none", () => {
    const tokens = Uint32Array.from([
      ...Array.from({ length: 64 }, () => 256),
      9_999,
      ...Buffer.from("const a_b = 1;"),
    ]);
    expect(new SegmentText(tokens, table, blockTokens).mentions("a_b", 9)).toEqual([{ from: 0, to: 2, defines: true }]);
  });

  it("takes letters of any language for letters", () => {
    const text = textOf("let größe = 1; let übergröße = 2; größen = 3");
    expect(text.mentions("größe", 9)).toHaveLength(1);
    expect(text.mentions("gr", 9)).toHaveLength(0);
  });

  it.each([
    "export const NAME = 4471;",
    "  async NAME (opts, handler) {",
    "function* NAME(a) {",
    "export default class NAME extends Base {",
    "def NAME(self, a: int) -> str:",
    "    NAME: str = 'a'",
    "func (c *Client) NAME(ctx context.Context) error {",
    "pub(crate) fn NAME<T>(value: T) -> Result<T> {",
    "static int NAME(const char *text, int length)",
    "std::vector<int> NAME(int a) {",
    "#define NAME 4",
    "type NAME = string;",
    "interface NAME {",
    "  readonly NAME: number;",
    "  NAME?: number;",
    '  "NAME": {',
    "NAME = 3",
    "const char* NAME;",
    "create table NAME (id int)",
  ])("takes for a definition: %s", (line) => {
    expect(definesIn(line, "NAME")).toBe(true);
  });

  it.each([
    "  return NAME(opts)",
    "  this.NAME(opts)",
    "const { a } = new NAME(opts)",
    "if (NAME === 3) {",
    "import { NAME } from './a.js'",
    "// see NAME for more",
    "foo(NAME, 3);",
    "  NAME(opts);",
    "throw NAME;",
    "x = NAME",
  ])("takes for a mention: %s", (line) => {
    expect(definesIn(line, "NAME")).toBe(false);
  });
});

describe("blocksNamed", () => {
  const filler = (count: number): string => "a line of nothing\n".repeat(count);
  const segments = [
    segment("one", `${filler(20)}  run (opts) {\n${filler(20)}  run (opts);\n`),
    segment("two", `${filler(40)}const SECRET_PORT = 4471;\n${filler(5)}listen(SECRET_PORT);\n`),
  ];

  it("finds the definition, and mentions of what is mentioned rarely", () => {
    const found = blocksNamed([asked("SECRET_PORT")], segments);
    expect(found.map(({ key }) => key)).toEqual(["two", "two"]);
    expect(found[0]).toMatchObject({ from: Math.floor(filler(40).length / blockTokens) });
  });

  it("finds nothing where nothing is asked or nothing is found", () => {
    expect(blocksNamed([], segments)).toEqual([]);
    expect(blocksNamed([asked("NOWHERE")], segments)).toEqual([]);
    expect(blocksNamed([asked("SECRET_PORT")], [])).toEqual([]);
  });

  it("leaves out what stands everywhere, but not its definition", () => {
    const common = [
      ...segments,
      segment("three", `${"call(common);\n".repeat(300)}function common() {\n${"call(common);\n".repeat(3)}`),
    ];
    const found = blocksNamed([asked("common")], common);
    expect(found).toHaveLength(1);
    expect(blocksNamed([asked("nothing")], common)).toEqual([]);
  });

  it("takes what only may be a name where it is defined in few places", () => {
    expect(blocksNamed([asked("nothing", false)], segments)).toEqual([]);
    const few = [segment("a", "class Agent {\n"), segment("b", "new Agent()\n")];
    expect(blocksNamed([asked("Agent", false)], few)).toEqual([{ key: "a", from: 0, to: 1 }]);
    const many = Array.from({ length: 3 }, (_, at) => segment(`${at}`, "class Agent {\n"));
    expect(blocksNamed([asked("Agent", false)], many)).toEqual([]);
    expect(blocksNamed([asked("Agent")], many)).toHaveLength(3);
  });

  it("takes each block once, definitions first, and stays within its limit", () => {
    const names = Array.from({ length: 20 }, (_, at) => asked(`some_name_${at}`));
    const text = names.map(({ text: name }) => `call(${name});\n${filler(8)}const ${name} = 1;\n${filler(8)}`).join("");
    const found = blocksNamed(names, [segment("all", text)], { blocksMax: 5 });
    const blocks = new Set(found.flatMap(({ from, to }) => Array.from({ length: to - from }, (_, at) => from + at)));
    expect(blocks.size).toBeLessThanOrEqual(5);
    expect(blocks.size).toBeGreaterThan(2);
    const first = Math.floor(text.indexOf("const some_name_0") / blockTokens);
    expect(found[0]?.from).toBe(first);
  });
});
