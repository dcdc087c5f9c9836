// Which files of a project count as what people wrote.

export const bytesMax = 96_000;
/** Longer lines are generated code. */
const lineMax = 400;
const written = /\.(?:js|mjs|cjs|jsx|ts|tsx|mts|py|go|rs|c|cc|cpp|h|hpp|cu|cuh)$/;
const built = /(?:^|\/)(?:dist|umd|cjs|esm|build|bundles?|vendor|_vendor|node_modules)\/|\.min\.|\.d\.ts$/;
const besideSource = /(?:^|\/)(?:test|tests|testing|__tests__|benchmarks?|examples?|docs)\/|[._](?:test|spec)\./;

/** Whether a file of this name may be one; paths have forward slashes. */
export function mayBeWritten(path) {
  return written.test(path) && !built.test(path);
}

/** The same of a package, which may ship its tests and examples or leave them out: they are no part of it. */
export function mayBeSource(path) {
  return mayBeWritten(path) && !besideSource.test(path);
}

/** `[{path, text}]` without what turns out to be no source, sorted by path. */
export function sourcesAmong(files) {
  return files
    .map(({ path, text }) => ({ path, text: text.replaceAll("\r\n", "\n") }))
    .filter(({ text }) => text.length <= bytesMax && text.split("\n").every((line) => line.length <= lineMax))
    .sort((a, b) => (a.path < b.path ? -1 : 1));
}
