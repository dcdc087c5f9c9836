/** Every number that the desk's owner may want to change, in one place. */

import type { Size } from "./types.js";

const dayMs = 24 * 60 * 60 * 1000;

export interface DeskConfig {
  readonly port: number;
  readonly dataFolder: string;
  /** A reminder is sent when a parcel has waited this long. */
  readonly reminderAfterMs: number;
  /** From here on a parcel is overdue and storage costs a fee. */
  readonly overdueAfterMs: number;
  /** From here on the nightly sweep sends a parcel back. */
  readonly returnAfterMs: number;
  /** Places on each kind of shelf. */
  readonly places: Readonly<Record<Size, number>>;
  /** Fee for each started day beyond the free ones, in cents. */
  readonly feeCentsPerDay: Readonly<Record<Size, number>>;
  /** No fee grows beyond this. */
  readonly feeCentsMax: number;
  /** Wrong codes that one address may try within `attemptsWindowMs` before it has to wait. */
  readonly attemptsMax: number;
  readonly attemptsWindowMs: number;
}

export const defaults: DeskConfig = {
  port: 4710,
  dataFolder: "./data",
  reminderAfterMs: 3 * dayMs,
  overdueAfterMs: 7 * dayMs,
  returnAfterMs: 14 * dayMs,
  places: { small: 120, medium: 48, large: 14 },
  feeCentsPerDay: { small: 40, medium: 75, large: 150 },
  feeCentsMax: 900,
  attemptsMax: 5,
  attemptsWindowMs: 10 * 60 * 1000,
};

/** Defaults, changed by the environment: DESK_PORT and DESK_DATA. */
export function configFrom(env: Readonly<Record<string, string | undefined>>): DeskConfig {
  const port = env["DESK_PORT"] === undefined ? defaults.port : Number(env["DESK_PORT"]);
  if (!Number.isInteger(port) || port < 1 || port > 65_535) {
    throw new Error(`DESK_PORT must be a number from 1 to 65535, not ${env["DESK_PORT"]}`);
  }
  return { ...defaults, port, dataFolder: env["DESK_DATA"] ?? defaults.dataFolder };
}
