// Named text to measure on: sources of packages that the lock file pins, always the same bytes.
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import path from "node:path";

const modules = fileURLToPath(new URL("../../node_modules/", import.meta.url));

export const codePackages = ["vscode-jsonrpc", "vscode-languageserver", "vscode-languageserver-protocol"];

/** JavaScript files of `packages`, in path order: `{path, text}`. */
export function packageSources(packages = codePackages) {
  return packages.flatMap((name) => filesBelow(path.join(modules, name, "lib")).map((file) => read(file)));
}

function filesBelow(folder) {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith(".js"))
    .map((entry) => path.join(entry.parentPath, entry.name))
    .sort();
}

function read(file) {
  return { path: path.relative(modules, file).replaceAll(path.sep, "/"), text: readFileSync(file, "utf8") };
}
