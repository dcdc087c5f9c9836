// zig, as the Python package ziglang: a C++ compiler that brings the libraries of other systems with it, and so compiles for
// them from here. It comes once per user, where Python is there.
import { chmodSync, existsSync, mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { userCache } from "./paths.mjs";
import { makeEnvironment, programsOf } from "./pythonEnvironment.mjs";
import { run } from "./run.mjs";
import { Advice } from "./steps.mjs";

/** The one that the targets were built with. */
const version = "0.17.1";

const environment = userCache(`zig-${version}`);

/** The programs CMake asks for, as zig has them. */
const programs = ["c++", "ar", "ranlib", "rc"];

/** What CMake needs to compile for one of zig's targets: arguments for cmake-js. Throws Advice where zig cannot be had. */
export async function zigOptions({ target, system, processor, toolchainFile }) {
  const zig = await ensureZig(target);
  const tools = userCache(`zig-${version}`, "tools", target);
  mkdirSync(tools, { recursive: true });
  for (const program of programs) {
    const file = path.join(tools, program);
    writeFileSync(file, program === "c++" ? compiler(zig, target) : `#!/bin/sh\nexec '${zig}' ${program} "$@"\n`);
    chmodSync(file, 0o755);
  }
  return [
    `--CDCMAKE_TOOLCHAIN_FILE=${toolchainFile}`,
    `--CDNOSA_ZIG_TOOLS=${tools}`,
    `--CDNOSA_ZIG_SYSTEM=${system}`,
    `--CDNOSA_ZIG_PROCESSOR=${processor}`,
  ];
}

/** zig's linker knows no --exclude-libs: what the libraries of its own hold is hidden where they are compiled. */
function compiler(zig, target) {
  return [
    "#!/bin/sh",
    'for word; do shift; [ "$word" = -Wl,--exclude-libs,ALL ] || set -- "$@" "$word"; done',
    // Without what debuggers want, which is most of the file there.
    `exec '${zig}' c++ -target ${target}${target.endsWith("musl") ? " -s" : ""} "$@"`,
    "",
  ].join("\n");
}

/** The path of zig itself; it is fetched when it is not there. */
async function ensureZig(target) {
  const need = `Compiling for ${target} needs zig ${version}, which comes with the Python package ziglang.`;
  if (process.platform === "win32") throw new Advice(`${need} That was not tried on Windows.`);
  const python = path.join(programsOf(environment), "python");
  if (!existsSync(python) && !(await makeEnvironment(environment, [`ziglang==${version}`], "zig"))) {
    throw new Advice(`${need} It could not be fetched; is there a Python 3 with venv and pip?`);
  }
  const where = "import os, ziglang; print(os.path.join(os.path.dirname(ziglang.__file__), 'zig'))";
  return (await run(python, ["-c", where], { log: "zig" })).stdout.trim();
}
