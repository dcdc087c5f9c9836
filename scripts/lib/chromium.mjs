// Finds a Chromium for the tests, and installs Debian's where that is possible.
import { installDebian, mayInstall } from "./debian.mjs";
import { versionOf } from "./run.mjs";
import { Advice } from "./steps.mjs";

const names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/** A program that runs as Chromium; NOSA_CHROMIUM names one explicitly. */
export async function findChromium() {
  const candidates = process.env.NOSA_CHROMIUM === undefined ? names : [process.env.NOSA_CHROMIUM];
  for (const name of candidates) {
    const file = await locate(name);
    if (file !== undefined) return file;
  }
  throw new Advice("The end-to-end tests need Chromium. Please install it, or name it in NOSA_CHROMIUM.");
}

/** Installs Chromium unless there is one; resolves with whether it had to. */
export async function ensureChromium() {
  for (const name of names) {
    if ((await locate(name)) !== undefined) return false;
  }
  if (process.env.NOSA_CHROMIUM !== undefined) return false;
  if (!mayInstall()) await findChromium();
  await installDebian(["chromium", "fonts-dejavu-core"], "The end-to-end tests need Chromium.");
  return true;
}

async function locate(name) {
  if (name.includes("/")) return (await versionOf(name)) === undefined ? undefined : name;
  const found = await versionOf("sh", ["-c", `command -v ${name}`]);
  return found === "" ? undefined : found;
}
