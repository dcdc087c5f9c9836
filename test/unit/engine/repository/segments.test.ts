import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import {
  planSegments,
  type SegmentOptions,
  type SegmentPlan,
  type TokenizedFile,
} from "../../../../engine/repository/segments";
import { random, testSeed } from "../../../support/random";

/**
 * A vocabulary for tests: token 0 is "\n", token 1 is "\n\n", tokens from 100 on are words without newlines, token 2 is "\nx", token 50 opens a file and
 * token 51 goes on with one.
 */
const size = 2_000;
const newlines = new Uint8Array(size);
const endsLine = new Uint8Array(size);
newlines[0] = 1;
newlines[1] = 2;
newlines[2] = 1;
endsLine[0] = endsLine[1] = 1;
const options: SegmentOptions = { segmentTokensMax: 512, blockTokens: 64, lines: { newlines, endsLine } };

const draw = random(testSeed());

function fileOf(path: string, tokens: readonly number[]): TokenizedFile {
  return {
    path,
    headerTokens: Uint32Array.of(50, 100, 0),
    continuedHeaderTokens: Uint32Array.of(51, 100, 101, 0),
    tokens: Uint32Array.from(tokens),
  };
}

/** Lines of words, some of them blank. */
function randomTokens(count: number): number[] {
  const tokens: number[] = [];
  while (tokens.length < count - 1)
    tokens.push(draw.next() < 0.1 ? draw.pick([0, 0, 0, 1, 2]) : draw.between(100, size - 1));
  return [...tokens, 0];
}

function randomFiles(): TokenizedFile[] {
  const folders = ["", "src", "src/deep", "test"];
  return Array.from({ length: 120 }, (_, at) => {
    const count = draw.pick([1, 5, 20, 40, 60, 200, 600, 3_000]);
    const folder = draw.pick(folders);
    return fileOf(`${folder === "" ? "" : `${folder}/`}file${at}.ts`, randomTokens(count));
  });
}

const keys = (plans: readonly SegmentPlan[]): ReadonlySet<string> => new Set(plans.map(({ contentKey }) => contentKey));

/** The content of each file, put together again from the plan. */
function contents(plans: readonly SegmentPlan[], files: readonly TokenizedFile[]): Map<string, number[]> {
  const byPath = new Map<string, number[]>();
  for (const plan of plans) {
    for (const { path, tokenStart, tokenEnd, firstLine } of plan.files) {
      const file = files.find((each) => each.path === path);
      const header = firstLine === 1 && !byPath.has(path) ? file?.headerTokens : file?.continuedHeaderTokens;
      const start = tokenStart + (header?.length ?? 0);
      expect([...plan.tokens.slice(tokenStart, start)]).toEqual([...(header ?? [])]);
      byPath.set(path, [...(byPath.get(path) ?? []), ...plan.tokens.slice(start, tokenEnd)]);
    }
  }
  return byPath;
}

describe("a plan of random files", () => {
  const files = randomFiles();
  const plans = planSegments(files, options);

  it("holds every token of every file once, in order, under its header", () => {
    const back = contents(plans, files);
    for (const file of files) expect(back.get(file.path), file.path).toEqual([...file.tokens]);
    expect(back.size).toBe(files.length);
  });

  it("keeps segments within their size, long files alone and siblings together", () => {
    for (const plan of plans) {
      expect(plan.tokens.length).toBeLessThanOrEqual(options.segmentTokensMax);
      expect(plan.tokens.length).toBeGreaterThan(0);
      const folders = new Set(plan.files.map(({ path }) => path.slice(0, path.lastIndexOf("/") + 1)));
      expect(folders.size).toBe(1);
    }
    expect(plans.some((plan) => plan.files.length > 1)).toBe(true);
  });

  it("cuts long files at line starts", () => {
    for (const plan of plans) {
      const [part] = plan.files;
      if (part === undefined || part.firstLine === 1) continue;
      const file = files.find(({ path }) => path === part.path);
      const tokens = [...(file?.tokens ?? [])];
      const lineStart = tokens.slice(0, tokens.length).reduce((line, token) => line + (newlines[token] ?? 0), 1);
      expect(part.firstLine).toBeLessThanOrEqual(lineStart);
    }
  });

  it("keys segments by the SHA-256 of their tokens", () => {
    const [plan] = plans;
    const bytes = Buffer.alloc((plan?.tokens.length ?? 0) * 4);
    plan?.tokens.forEach((token, at) => bytes.writeUInt32LE(token, at * 4));
    expect(plan?.contentKey).toBe(createHash("sha256").update(bytes).digest("hex"));
  });

  it("says for each block which lines it covers", () => {
    for (const plan of plans) {
      expect(plan.blockLines).toHaveLength(Math.ceil(plan.tokens.length / options.blockTokens));
      const expected = plan.blockLines.map(() => new Map<string, [number, number]>());
      for (const { path, tokenStart, tokenEnd, firstLine } of plan.files) {
        const header = (plan.tokens[tokenStart] === 50 ? 3 : 4) + tokenStart;
        let line = firstLine;
        for (let at = tokenStart; at < tokenEnd; at++) {
          const token = plan.tokens[at] ?? 0;
          const count = at < header ? 0 : (newlines[token] ?? 0);
          const last = line + count - (count > 0 && endsLine[token] === 1 ? 1 : 0);
          const span = expected[Math.floor(at / options.blockTokens)];
          span?.set(path, [span.get(path)?.[0] ?? line, last]);
          line += count;
        }
      }
      expect(
        plan.blockLines.map((spans) => spans.map(({ path, startLine, endLine }) => [path, [startLine, endLine]])),
      ).toEqual(expected.map((spans) => [...spans]));
    }
  });

  it("does not depend on the order of the files", () => {
    const shuffled = files.toSorted(() => draw.next() - 0.5);
    expect(planSegments(shuffled, options).map(({ contentKey }) => contentKey)).toEqual(
      plans.map(({ contentKey }) => contentKey),
    );
  });

  it("changes only the segments that hold an edited file", () => {
    const old = keys(plans);
    for (let round = 0; round < 30; round++) {
      const at = draw.between(0, files.length - 1);
      const file = files[at];
      if (file === undefined) continue;
      const tokens = [...file.tokens];
      tokens.splice(draw.between(0, tokens.length - 1), draw.between(0, 2), 777, 0);
      const edited = files.map((each, index) => (index === at ? { ...file, tokens: Uint32Array.from(tokens) } : each));
      for (const plan of planSegments(edited, options)) {
        // A file may leave or join a group when its size changes; a segment without it stays as it was, or was a group with it.
        const held = plans
          .filter((each) => each.files.some(({ path }) => path === file.path))
          .flatMap((each) => each.files.map(({ path }) => path));
        if (plan.files.every(({ path }) => !held.includes(path))) expect(old.has(plan.contentKey)).toBe(true);
      }
    }
  });
});

describe("an edit in a long file", () => {
  it("leaves most parts as they were, wherever it is", () => {
    const tokens = randomTokens(40_000);
    const before = keys(planSegments([fileOf("a.ts", tokens)], options));
    let kept = 0;
    const rounds = 20;
    for (let round = 0; round < rounds; round++) {
      const edited = [...tokens];
      edited.splice(draw.between(0, 8_000), 0, 900, 901, 0);
      const after = planSegments([fileOf("a.ts", edited)], options);
      kept += after.filter(({ contentKey }) => before.has(contentKey)).length / after.length;
    }
    expect(kept / rounds).toBeGreaterThan(0.75);
  });
});

describe("bad and borderline input", () => {
  it("plans nothing for no files, and a header for an empty one", () => {
    expect(planSegments([], options)).toEqual([]);
    const [plan] = planSegments([fileOf("empty", [])], options);
    expect(plan?.files).toEqual([{ path: "empty", tokenStart: 0, tokenEnd: 3, firstLine: 1 }]);
    expect(plan?.blockLines).toEqual([[{ path: "empty", startLine: 1, endLine: 1 }]]);
  });

  it("cuts a line that is longer than a segment", () => {
    const tokens = Array.from({ length: 2_000 }, () => draw.between(100, size - 1));
    const file = fileOf("line", tokens);
    const plans = planSegments([file], options);
    expect(contents(plans, [file]).get("line")).toEqual(tokens);
    expect(plans.every((plan) => plan.files.every(({ firstLine }) => firstLine === 1))).toBe(true);
  });

  it("does not let a path crowd out the content", () => {
    const file = {
      ...fileOf("p", randomTokens(1_000)),
      headerTokens: new Uint32Array(5_000).fill(100),
      continuedHeaderTokens: new Uint32Array(5_000).fill(100),
    };
    const plans = planSegments([file], options);
    expect(plans.every((plan) => plan.tokens.length <= options.segmentTokensMax)).toBe(true);
    expect(plans.reduce((sum, plan) => sum + plan.tokens.length - 256, 0)).toBe(1_000);
  });

  it("refuses segments that would be too short", () => {
    expect(() => planSegments([], { ...options, segmentTokensMax: 64 })).toThrow(RangeError);
  });
});
