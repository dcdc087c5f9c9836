/** Loads the native addon. */

import { createRequire } from "node:module";
import { EngineError } from "../errors";
import type { NativeAddon } from "./addon";

/** The addon in `file` (absolute). Throws a sentence for the user when it is missing or made for another machine. */
export function loadAddon(file: string): NativeAddon {
  try {
    return createRequire(file)(file) as NativeAddon;
  } catch (error) {
    throw new EngineError(
      "internal",
      `Nosa's native part could not be loaded from ${file}: install the extension for this platform again, or run "npm run build".`,
      { cause: error },
    );
  }
}
