// Prints which files have grown beyond what one sitting can read, and what the bundles are made of. Informative: it
// never fails.
//
//   npm run sizes
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { inputsFile } from "./build.mjs";
import { inRoot } from "./lib/paths.mjs";
import { filesUnder } from "./lib/stamp.mjs";

/** Folder → most lines that one file should have. */
const linesMax = { extension: 250, media: 250, engine: 300, native: 400, kernels: 500, scripts: 250, test: 500 };
const sourceKinds = /\.(ts|mjs|css|cpp|h|cu|cuh|py)$/;

function linesOf(file) {
  return readFileSync(inRoot(file), "utf8").split("\n").length - 1;
}

function printFolders() {
  for (const [folder, most] of Object.entries(linesMax)) {
    const files = filesUnder([folder], (file) => sourceKinds.test(file)).map((file) => ({
      file,
      lines: linesOf(file),
    }));
    const total = files.reduce((sum, { lines }) => sum + lines, 0);
    print(`${folder.padEnd(12)}${String(files.length).padStart(5)} files${String(total).padStart(8)} lines`);
    for (const { file, lines } of files.filter((each) => each.lines > most).sort((a, b) => b.lines - a.lines)) {
      print(`    ${String(lines).padStart(5)} of ${most}   ${file}`);
    }
  }
}

/** The packages that take the most room in each bundle. */
function printBundles() {
  if (!existsSync(inputsFile)) return;
  for (const [bundle, inputs] of Object.entries(JSON.parse(readFileSync(inputsFile, "utf8")))) {
    const byPackage = new Map();
    for (const [input, bytes] of Object.entries(inputs)) {
      const name = packageOf(input);
      byPackage.set(name, (byPackage.get(name) ?? 0) + bytes);
    }
    const total = [...byPackage.values()].reduce((sum, bytes) => sum + bytes, 0);
    print(`\n${bundle}  ${kib(total)}`);
    const largest = [...byPackage].sort((a, b) => b[1] - a[1]).slice(0, 8);
    for (const [name, bytes] of largest) print(`    ${kib(bytes).padStart(9)}  ${name}`);
  }
}

/** "node_modules/@a/b/c.js" → "@a/b"; our own files by their top folder. */
function packageOf(input) {
  const parts = input.split("/");
  const at = parts.lastIndexOf("node_modules");
  if (at < 0) return `${parts[0]}${path.posix.sep}`;
  return parts.slice(at + 1, at + (parts[at + 1].startsWith("@") ? 3 : 2)).join("/");
}

const kib = (bytes) => `${Math.ceil(bytes / 1024)} KiB`;
const print = (text) => process.stdout.write(`${text}\n`);

printFolders();
printBundles();
