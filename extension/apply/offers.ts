import type { Prepared } from "../asking/prepare";
import type { SlashName } from "../asking/slash";
import { codeBlocks, isApplicable } from "./codeBlocks";
import type { CodeToApply } from "./proposals";
import { testPathFor } from "./testPath";

/** Where the code of an answer may go, judged by what was asked. Plain data: kept with the answer. */
export interface ApplyHint {
  /** Uri of what the question was about; "" for none. */
  readonly about: string;
  readonly lines: CodeToApply["lines"];
  /** Of the file that new code belongs to, when the answer names none; "" for the one the question was about. */
  readonly path: string;
}

export const noHint: ApplyHint = { about: "", lines: null, path: "" };

export function applyHint(command: SlashName | undefined, prepared: Prepared): ApplyHint {
  const [first] = prepared.attachments;
  if (first === undefined || first.isFolder) return noHint;
  if (command === "tests" && prepared.folder !== undefined) {
    return { about: "", lines: null, path: testPathFor(first.subject.path, prepared.readPaths) };
  }
  const { lines } = first.subject;
  return {
    about: first.uri.toString(),
    lines: lines === null ? null : { from: lines.from - 1, to: lines.to - 1 },
    path: "",
  };
}

/** The blocks of an answer that can be put into a file. */
export function offersOf(answer: string, hint: ApplyHint): readonly CodeToApply[] {
  return codeBlocks(answer)
    .filter(isApplicable)
    .map((block) => codeToApply(block.code, block.path, hint));
}

export function codeToApply(code: string, path: string, hint: ApplyHint): CodeToApply {
  if (hint.path !== "") return { code, path: hint.path, about: "", lines: null };
  return { code, path, about: hint.about, lines: hint.lines };
}
