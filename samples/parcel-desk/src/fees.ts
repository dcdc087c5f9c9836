/** What storage costs. Pure, so that the counter and the web page can never disagree. */

import type { DeskConfig } from "./config.js";
import type { Parcel } from "./types.js";

const dayMs = 24 * 60 * 60 * 1000;

/**
 * Fee for handing a parcel out at `nowMs`, in cents.
 *
 * Free until the parcel is overdue. Then each started day costs the price of the parcel's own size, also when it lies on a
 * larger shelf because its own were full: that was the desk's choice. The total stops at `feeCentsMax`.
 */
export function storageFee(parcel: Parcel, nowMs: number, config: DeskConfig): number {
  const beyondMs = nowMs - parcel.receivedAtMs - config.overdueAfterMs;
  if (beyondMs <= 0) return 0;
  const startedDays = Math.ceil(beyondMs / dayMs);
  return Math.min(startedDays * config.feeCentsPerDay[parcel.size], config.feeCentsMax);
}

/** "3.75" for 375. */
export function formatCents(cents: number): string {
  return `${Math.floor(cents / 100)}.${String(cents % 100).padStart(2, "0")}`;
}
