/** Where a repository keeps the tests of a file, judged by the tests it has. Pure. */

interface TestName {
  /** Folder of the test, "" or with a slash at the end. */
  readonly folder: string;
  /** Around the name of what is tested: "", ".test.ts". */
  readonly before: string;
  readonly after: string;
}

/** "test/fees.test.ts" for "src/fees.ts" where there is a "test/desk.test.ts"; beside the file where there is no test yet. */
export function testPathFor(file: string, known: Iterable<string>): string {
  const { folder, name, extension } = split(file);
  const tests = [...known].flatMap((path) => testName(path) ?? []).filter(({ after }) => after.endsWith(extension));
  const beside = tests.find((test) => test.folder === folder);
  const test = beside ?? tests.find(({ folder: other }) => /(^|\/)(tests?|__tests__|spec)\//.test(other)) ?? tests[0];
  if (test === undefined) return `${folder}${defaultName(name, extension)}`;
  return `${test.folder}${test.before}${name}${test.after}`;
}

function split(file: string): { readonly folder: string; readonly name: string; readonly extension: string } {
  const slash = file.lastIndexOf("/") + 1;
  const base = file.slice(slash);
  const dot = base.lastIndexOf(".");
  const end = dot > 0 ? dot : base.length;
  return { folder: file.slice(0, slash), name: base.slice(0, end), extension: base.slice(end) };
}

function testName(path: string): TestName | undefined {
  const { folder, name, extension } = split(path);
  const suffix = /([._-])(test|spec)$/.exec(name);
  if (suffix !== null) return { folder, before: "", after: suffix[0] + extension };
  return name.startsWith("test_") ? { folder, before: "test_", after: extension } : undefined;
}

function defaultName(name: string, extension: string): string {
  if (extension === ".py") return `test_${name}${extension}`;
  return extension === ".go" || extension === ".cpp" || extension === ".rs"
    ? `${name}_test${extension}`
    : `${name}.test${extension}`;
}
