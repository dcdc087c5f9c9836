/** Which build this is: the version of the manifest, and when it was bundled. */

import { version } from "../package.json";

/** Set by the bundler; milliseconds. */
declare const __nosaBuild: number | undefined;

export const engineVersion: string = version;

/** 0 for code that runs without being bundled: it replaces nothing. */
export const engineBuild: number = typeof __nosaBuild === "undefined" ? 0 : __nosaBuild;

export interface Build {
  readonly version: string;
  readonly build: number;
}

/** Whether an engine of build `a` takes the place of one of build `b`: of a later version, or built later. */
export function supersedes(a: Build, b: Build): boolean {
  return isNewer(a.version, b.version) || (!isNewer(b.version, a.version) && a.build > b.build);
}

/** Whether `a` is a later release than `b`; both dotted numbers. A suffix such as "-beta" does not count. */
export function isNewer(a: string, b: string): boolean {
  const left = numbers(a);
  const right = numbers(b);
  for (let index = 0; index < Math.max(left.length, right.length); index++) {
    const difference = (left[index] ?? 0) - (right[index] ?? 0);
    if (difference !== 0) return difference > 0;
  }
  return false;
}

function numbers(version: string): readonly number[] {
  return (version.split("-")[0] ?? "").split(".").map((part) => Number.parseInt(part, 10) || 0);
}
