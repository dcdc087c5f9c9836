// npm run ask, index, complete, tokens: builds what is missing, quietly, and hands over to the terminal program.
//
// Standard output belongs to the terminal program alone.
import { prepareBundles, runCli } from "./lib/prepare.mjs";
import { createSteps, printFailure } from "./lib/steps.mjs";

try {
  await prepareBundles(createSteps({ stream: process.stderr, quiet: true }));
  process.exitCode = await runCli(process.argv.slice(2));
} catch (error) {
  printFailure(error);
  process.exitCode = 1;
}
