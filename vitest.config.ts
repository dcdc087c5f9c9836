import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

// Each kind of test is a project of its own, so that scripts/test.mjs can run and report them one by one.
const kind = (name: string, include: string[], timeoutMs: number) => ({
  test: {
    name,
    include,
    environment: "node" as const,
    // There is no editor in these tests: what they need of it is in one small module.
    alias: { vscode: fileURLToPath(new URL("test/support/vscode.ts", import.meta.url)) },
    testTimeout: timeoutMs,
    hookTimeout: timeoutMs,
    // Tests that hold a model or a browser run one after the other: two cores are all there is.
    ...(name === "unit"
      ? {}
      : {
          // What is waited for comes from other processes.
          expect: { poll: { interval: 50, timeout: 60_000 } },
          fileParallelism: false,
          pool: "forks" as const,
          poolOptions: { forks: { singleFork: true } },
        }),
  },
});

export default defineConfig({
  test: {
    projects: [
      kind("unit", ["test/unit/**/*.test.ts"], 20_000),
      kind("project", ["test/project/**/*.test.ts"], 60_000),
      kind("addon", ["test/addon/**/*.test.ts"], 120_000),
      kind("oracle", ["test/oracle/**/*.test.ts"], 900_000),
      kind("engine", ["test/engine/**/*.test.ts"], 300_000),
      kind("e2e", ["test/e2e/**/*.test.ts"], 600_000),
    ],
  },
});
