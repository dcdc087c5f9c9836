// Where things are: the checkout, and the one folder outside it that holds what is downloaded once per user.
import { homedir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

/** The root of the checkout. */
export const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "..", "..");

/** Build results that a fresh checkout lacks and that are safe to delete: stamps and logs. */
export const checkoutCache = path.join(root, ".cache");

/** Absolute path of something in the checkout. */
export function inRoot(...parts) {
  return path.join(root, ...parts);
}

/** The per-user folder for downloads shared by all checkouts: the editor, and tools that pip brought. */
export function userCache(...parts) {
  const base =
    process.env.NOSA_TOOLS_HOME ??
    path.join(process.env.XDG_CACHE_HOME ?? path.join(homedir(), ".cache"), "nosa-tools");
  return path.join(base, ...parts);
}
