/** Numbers as people read them. All pure; the same words in every view. */

import { l10n } from "vscode";

/** 950, 12.3k, 124k, 1.2M. */
export function countText(count: number): string {
  if (count < 1000) return String(Math.round(count));
  if (count < 999_500) return `${scaled(count / 1000)}k`;
  return `${scaled(count / 1_000_000)}M`;
}

/** 512 B, 3.4 MB, 1.2 GB, in powers of 1000 as disks are sold. */
export function bytesText(bytes: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let value = bytes;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit === 0 ? String(Math.round(value)) : scaled(value)} ${units[unit] ?? "TB"}`;
}

/** 4 s, 2 min, 1 h 5 min; rounded up, so that a promise is not too short. */
export function durationText(seconds: number): string {
  if (seconds < 60) return `${Math.max(1, Math.ceil(seconds))} s`;
  const minutes = Math.ceil(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const rest = minutes % 60;
  return rest === 0 ? `${Math.floor(minutes / 60)} h` : `${Math.floor(minutes / 60)} h ${rest} min`;
}

/** Whole per cent of a part, 0 while the whole is unknown, never above 100. */
export function percentOf(part: number, whole: number): number {
  if (whole <= 0) return 0;
  return Math.min(100, Math.floor((100 * part) / whole));
}

/** "1 file", "2 files". */
export function filesText(count: number): string {
  return count === 1 ? l10n.t("1 file") : l10n.t("{0} files", countText(count));
}

/** One digit after the point below a hundred, none above, no ".0". */
function scaled(value: number): string {
  return value < 99.95 ? value.toFixed(1).replace(/\.0$/, "") : String(Math.round(value));
}
