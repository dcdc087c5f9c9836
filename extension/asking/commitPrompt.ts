/**
 * What is asked for the message of a commit. A small model that is told what a message is repeats the change instead; shown
 * four changes with their messages, it writes a fifth. So the examples are turns of a conversation, in the form of the
 * repository's own messages.
 */
import type { ChatMessage } from "../../engine/protocol";
import { cutAtLine } from "./workingDiff";
import { fenced } from "./prompts";

/** More of a change is not read: what it is about stands in its first lines, or in the names of its files. */
export const changeCharactersMax = 3_000;
/** Of a commit of many files, the names of so many. */
const namesMax = 6;

interface Example {
  readonly path: string;
  readonly change: string;
  readonly subject: string;
  /** By the convention that names the kind of a change first. */
  readonly kind: string;
}

const shown: readonly Example[] = [
  {
    path: "src/store.ts",
    change: [
      "@@ -3,3 +3,4 @@ export class Store {",
      "   get(key: string): Entry | undefined {",
      "-    return this.entries[key];",
      "+    const entry = this.entries[key];",
      "+    return isExpired(entry) ? undefined : entry;",
      "   }",
    ].join("\n"),
    subject: "Treat expired entries as missing",
    kind: "fix",
  },
  {
    path: "docs/setup.md",
    change: "@@ -10,2 +10,4 @@\n ## Use\n \n+Run `make` first.\n+",
    subject: "Tell newcomers to run make first",
    kind: "docs",
  },
  {
    path: "lib/parse.py",
    change: "@@ -41,4 +41,2 @@ def parse(text):\n-    if DEBUG:\n-        print(text)\n     return read(text)",
    subject: "Remove a print that was left from debugging",
    kind: "chore",
  },
  {
    path: "test/queue_test.go",
    change: [
      "@@ -70,0 +71,6 @@",
      "+func TestQueueIsEmptyAfterClose(t *testing.T) {",
      "+\tq := NewQueue()",
      "+\tq.Close()",
      "+\tif q.Len() != 0 {",
      "+\t\tt.Fatal(q.Len())",
      "+\t}",
      "+}",
    ].join("\n"),
    subject: "Test that a closed queue is empty",
    kind: "test",
  },
];

/** `paths` are the files of the change, `subjects` the first lines of the latest messages, newest first. Pure. */
export function commitMessages(
  diff: string,
  paths: readonly string[],
  subjects: readonly string[],
): readonly ChatMessage[] {
  const examples = shown.flatMap((example): readonly ChatMessage[] => [
    { role: "user", content: question(example.change, [example.path]) },
    { role: "assistant", content: inFormOf(subjects, example) },
  ]);
  return [...examples, { role: "user", content: question(cutAtLine(bare(diff), changeCharactersMax).text, paths) }];
}

/** Whether a message is that of an example, in whatever form. */
export function isExample(message: string): boolean {
  const said = message.toLowerCase().replace(/\.$/, "");
  return shown.some(({ subject }) => said.endsWith(subject.toLowerCase()));
}

function question(change: string, paths: readonly string[]): string {
  const more = paths.length > namesMax ? ` and ${paths.length - namesMax} more files` : "";
  const names = paths.length === 0 ? "" : ` to ${paths.slice(0, namesMax).join(", ")}${more}`;
  return `Write the commit message of this change${names}:\n\n${fenced(change, "diff")}`;
}

/** A subject as most of the latest ones are written: with the kind before it, in small letters, with a full stop. */
function inFormOf(subjects: readonly string[], { subject, kind }: Example): string {
  const most = (form: RegExp): boolean => 2 * subjects.filter((each) => form.test(each)).length > subjects.length;
  const hasKind = most(/^[a-z]+(\([^)]*\))?!?: /);
  const isSmall = most(hasKind ? /^[^:]*: \p{Ll}/u : /^\p{Ll}/u);
  const said = isSmall ? subject.charAt(0).toLowerCase() + subject.slice(1) : subject;
  return `${hasKind ? `${kind}: ` : ""}${said}${most(/\.$/) ? "." : ""}`;
}

/** Without what only git reads: hashes of contents, modes, and the file's name for the second and third time. */
function bare(diff: string): string {
  return diff
    .split("\n")
    .filter((line) => !/^(diff --git |index [0-9a-f]+\.\.|--- |(new|deleted) file mode )/.test(line))
    .map((line) => line.replace(/^\+\+\+ (?:b\/)?/, "File "))
    .join("\n");
}
