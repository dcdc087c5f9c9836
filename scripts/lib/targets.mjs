// For which systems the extension is packaged, by VS Code's names for them, and with which tools.
import { closeSync, openSync, readSync } from "node:fs";
import { versionOf } from "./run.mjs";
import { Advice } from "./steps.mjs";

/** This machine. */
export const hostTarget = `${process.platform}-${process.arch}`;

/** What else an x86-64 Linux compiles for: the CMake tool chain, its compiler, and Debian's package of that. */
const crossTools = {
  "linux-arm64": {
    toolchainFile: "native/cmake/aarch64.cmake",
    compiler: "aarch64-linux-gnu-g++",
    debian: "g++-aarch64-linux-gnu",
  },
};

const posix =
  "the engine's native part reads files and shares memory by POSIX calls, which Windows lacks: it was not ported yet";
const mac = "there is no cross compiler for macOS, and nobody has tried it on a Mac yet";
const musl = "no C++ cross compiler for musl is at hand, and it was not tried there";

/** Why there is no package for the rest of VS Code's targets. */
const notYet = {
  "win32-x64": posix,
  "win32-arm64": posix,
  "darwin-x64": mac,
  "darwin-arm64": mac,
  "alpine-x64": musl,
  "alpine-arm64": musl,
  "linux-armhf": "kernels are written for 64-bit processors",
  web: "a model needs a machine: the engine is a process beside the editor",
};

/** The tools for `target`, undefined for this machine itself; Advice says why there are none, or what to install. */
export async function toolsFor(target) {
  if (target === hostTarget) return undefined;
  const tools = hostTarget === "linux-x64" ? crossTools[target] : undefined;
  if (tools === undefined) throw new Advice(`There is no package for ${target}: ${whyNot(target)}.`);
  if ((await versionOf(tools.compiler)) === undefined) {
    throw new Advice(
      `Packaging for ${target} needs ${tools.compiler}. Please install: sudo apt-get install ${tools.debian}`,
    );
  }
  return tools;
}

function whyNot(target) {
  if (crossTools[target] !== undefined) return `it is built there, or on linux-x64, and this is ${hostTarget}`;
  return notYet[target] ?? "VS Code knows no such system";
}

/** Every target of VS Code that this project has an answer for. */
export const knownTargets = ["linux-x64", ...Object.keys(crossTools), ...Object.keys(notYet)];

/** Of ELF files, by the name of the processor in a target. */
const elfMachines = { x64: 62, arm64: 183 };

/** Throws where a file for Linux is not a program for that system's processor: a mix-up would only show on the user's machine. */
export function assertMadeFor(target, file) {
  const [system, processor] = target.split("-");
  if (system !== "linux") return;
  const head = Buffer.alloc(20);
  const handle = openSync(file, "r");
  readSync(handle, head, 0, head.length, 0);
  closeSync(handle);
  const machine = head.toString("latin1", 1, 4) === "ELF" ? head.readUInt16LE(18) : -1;
  if (machine !== elfMachines[processor]) throw new Error(`${file} is no program for ${target}.`);
}
