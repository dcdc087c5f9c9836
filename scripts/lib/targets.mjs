// For which systems the extension is packaged, by VS Code's names for them, and with which tools.
import { closeSync, openSync, readSync } from "node:fs";
import { inRoot } from "./paths.mjs";
import { versionOf } from "./run.mjs";
import { Advice } from "./steps.mjs";
import { zigOptions } from "./zig.mjs";

/** This machine. */
export const hostTarget = `${process.platform}-${process.arch}`;

/** What else is compiled for from here: with Debian's cross compiler, or with zig (scripts/lib/zig.mjs). */
const crossTools = {
  "linux-arm64": {
    toolchainFile: "native/cmake/aarch64.cmake",
    compiler: "aarch64-linux-gnu-g++",
    debian: "g++-aarch64-linux-gnu",
  },
  "win32-x64": { zig: "x86_64-windows-gnu", system: "Windows", processor: "x86_64" },
  "win32-arm64": { zig: "aarch64-windows-gnu", system: "Windows", processor: "aarch64" },
  "darwin-x64": { zig: "x86_64-macos", system: "Darwin", processor: "x86_64" },
  "darwin-arm64": { zig: "aarch64-macos", system: "Darwin", processor: "aarch64" },
  "alpine-x64": { zig: "x86_64-linux-musl", system: "Linux", processor: "x86_64" },
  "alpine-arm64": { zig: "aarch64-linux-musl", system: "Linux", processor: "aarch64" },
};

/** Why there is no package for the rest of VS Code's targets. */
const notYet = {
  "linux-armhf": "kernels are written for 64-bit processors",
  web: "a model needs a machine: the engine is a process beside the editor",
};

/** What cmake-js is told to compile for `target`, undefined for this machine itself; Advice says why it cannot, or what to install. */
export async function toolsFor(target) {
  if (target === hostTarget) return undefined;
  const tools = crossTools[target];
  if (tools === undefined) throw new Advice(`There is no package for ${target}: ${whyNot(target)}.`);
  if (tools.zig !== undefined) {
    const { zig, system, processor } = tools;
    return zigOptions({ target: zig, system, processor, toolchainFile: inRoot("native/cmake/zig.cmake") });
  }
  if (hostTarget !== "linux-x64") throw new Advice(`There is no package for ${target}: ${whyNot(target)}.`);
  if ((await versionOf(tools.compiler)) === undefined) {
    throw new Advice(
      `Packaging for ${target} needs ${tools.compiler}. Please install: sudo apt-get install ${tools.debian}`,
    );
  }
  return [`--CDCMAKE_TOOLCHAIN_FILE=${inRoot(tools.toolchainFile)}`];
}

function whyNot(target) {
  if (crossTools[target] !== undefined) return `it is built there, or on linux-x64, and this is ${hostTarget}`;
  return notYet[target] ?? "VS Code knows no such system";
}

/** Every target of VS Code that this project has an answer for. */
export const knownTargets = ["linux-x64", ...Object.keys(crossTools), ...Object.keys(notYet)];

/** Of a processor, as files for Linux, Windows and macOS name it. */
const machines = {
  x64: { elf: 62, pe: 0x8664, machO: 0x01000007 },
  arm64: { elf: 183, pe: 0xaa64, machO: 0x0100000c },
};

/** Which of a file's names of a processor counts on a system. */
const formats = { linux: "elf", alpine: "elf", win32: "pe", darwin: "machO" };

/** Throws where a file is not a program for that system and processor: a mix-up would only show on the user's machine. */
export function assertMadeFor(target, file) {
  const [system, processor] = target.split("-");
  const format = formats[system];
  if (machineIn(file, format) !== machines[processor]?.[format])
    throw new Error(`${file} is no program for ${target}.`);
}

/** The processor that a file of such a format was made for; -1 where it has another format. */
function machineIn(file, format) {
  const head = Buffer.alloc(1024);
  const handle = openSync(file, "r");
  readSync(handle, head, 0, head.length, 0);
  closeSync(handle);
  switch (format) {
    case "elf":
      return head.toString("latin1", 1, 4) === "ELF" ? head.readUInt16LE(18) : -1;
    case "pe": {
      const at = Math.min(head.readUInt32LE(0x3c), head.length - 6);
      return head.toString("latin1", at, at + 4) === "PE\0\0" ? head.readUInt16LE(at + 4) : -1;
    }
    default:
      return head.readUInt32LE(0) === 0xfeedfacf ? head.readUInt32LE(4) : -1;
  }
}
