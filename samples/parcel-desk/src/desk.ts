/**
 * The desk: takes parcels in, hands them out, sends them back.
 *
 * Every change is an event that goes to the journal first and is then applied to the state; replaying the journal at start
 * applies the same events through the same code. Nothing else changes the state.
 */

import { isWellFormed, makeCode, normalizeCode } from "./codes.js";
import type { DeskConfig } from "./config.js";
import { storageFee } from "./fees.js";
import { Journal } from "./journal.js";
import { arrivalText, type Outbox, overdueText, reminderText } from "./notifications.js";
import { AttemptLimit } from "./rateLimit.js";
import { Shelves, sizeOf } from "./shelves.js";
import { type Delivery, DeskError, type Event, type Parcel, type Size } from "./types.js";

export interface DeskParts {
  readonly config: DeskConfig;
  readonly outbox: Outbox;
  readonly nowMs: () => number;
  readonly random: () => number;
}

export interface SweepResult {
  readonly reminded: number;
  readonly overdue: number;
  readonly returned: number;
}

export class Desk {
  readonly #parts: DeskParts;
  readonly #journal: Journal;
  readonly #shelves: Shelves;
  readonly #attempts: AttemptLimit;
  readonly #parcels = new Map<string, Parcel>();
  /** Codes of parcels that are still here. */
  readonly #byCode = new Map<string, string>();
  readonly #reminded = new Set<string>();

  constructor(parts: DeskParts) {
    this.#parts = parts;
    this.#shelves = new Shelves(parts.config);
    this.#attempts = new AttemptLimit(parts.config.attemptsMax, parts.config.attemptsWindowMs);
    this.#journal = Journal.open(parts.config.dataFolder, (event) => {
      if (event.kind === "received") this.#shelves.restore(event.parcel.shelf);
      this.#apply(event);
    });
  }

  receive(delivery: Delivery): Parcel {
    const nowMs = this.#parts.nowMs();
    const size = sizeOf(delivery.dimensions);
    const parcel: Parcel = {
      id: `P${String(this.#parcels.size + 1).padStart(6, "0")}`,
      courier: delivery.courier,
      addressee: delivery.addressee,
      size,
      shelf: this.#shelves.take(size),
      code: makeCode(this.#parts.random, (code) => this.#byCode.has(code)),
      receivedAtMs: nowMs,
      state: "waiting",
    };
    this.#record({ kind: "received", atMs: nowMs, parcel });
    this.#parts.outbox.post({ to: parcel.addressee, text: arrivalText(parcel) });
    return parcel;
  }

  /** Hands a parcel out. `from` is the address of whoever asks, for the limit on wrong codes. */
  collect(codeAsTyped: string, from: string): Parcel {
    const nowMs = this.#parts.nowMs();
    const waitMs = this.#attempts.waitMs(from, nowMs);
    if (waitMs > 0) throw new DeskError(429, `Too many wrong codes. Try again in ${Math.ceil(waitMs / 1000)} seconds.`);
    const code = normalizeCode(codeAsTyped);
    const id = isWellFormed(code) ? this.#byCode.get(code) : undefined;
    if (id === undefined) {
      this.#attempts.failed(from, nowMs);
      throw new DeskError(404, "No parcel waits under this code.");
    }
    this.#attempts.succeeded(from);
    const parcel = this.#get(id);
    const feeCents = storageFee(parcel, nowMs, this.#parts.config);
    this.#record({ kind: "collected", atMs: nowMs, parcelId: id, feeCents });
    return this.#get(id);
  }

  /** The nightly sweep: reminders, overdue marks, returns to couriers. Running it twice changes nothing the second time. */
  sweep(): SweepResult {
    const nowMs = this.#parts.nowMs();
    const { config, outbox } = this.#parts;
    let [reminded, overdue, returned] = [0, 0, 0];
    for (const parcel of this.waiting()) {
      const ageMs = nowMs - parcel.receivedAtMs;
      if (ageMs >= config.returnAfterMs) {
        this.#record({ kind: "returned", atMs: nowMs, parcelId: parcel.id });
        returned += 1;
      } else if (ageMs >= config.overdueAfterMs && parcel.state === "waiting") {
        this.#record({ kind: "overdue", atMs: nowMs, parcelId: parcel.id });
        outbox.post({ to: parcel.addressee, text: overdueText(parcel, config.feeCentsPerDay[parcel.size]) });
        overdue += 1;
      } else if (ageMs >= config.reminderAfterMs && !this.#reminded.has(parcel.id)) {
        this.#record({ kind: "reminded", atMs: nowMs, parcelId: parcel.id });
        outbox.post({ to: parcel.addressee, text: reminderText(parcel) });
        reminded += 1;
      }
    }
    return { reminded, overdue, returned };
  }

  /** Parcels that are here, oldest first. */
  waiting(): readonly Parcel[] {
    return [...this.#byCode.values()].map((id) => this.#get(id)).sort((a, b) => a.receivedAtMs - b.receivedAtMs);
  }

  free(size: Size): number {
    return this.#shelves.free(size);
  }

  close(): void {
    this.#journal.close();
  }

  #record(event: Event): void {
    this.#journal.append(event);
    this.#apply(event);
  }

  #apply(event: Event): void {
    switch (event.kind) {
      case "received":
        this.#parcels.set(event.parcel.id, event.parcel);
        this.#byCode.set(event.parcel.code, event.parcel.id);
        return;
      case "reminded":
        this.#reminded.add(event.parcelId);
        return;
      case "overdue":
        this.#parcels.set(event.parcelId, { ...this.#get(event.parcelId), state: "overdue" });
        return;
      case "collected":
        this.#closeParcel({ ...this.#get(event.parcelId), state: "collected", closedAtMs: event.atMs, feeCents: event.feeCents });
        return;
      case "returned":
        this.#closeParcel({ ...this.#get(event.parcelId), state: "returned", closedAtMs: event.atMs });
        return;
    }
  }

  #closeParcel(parcel: Parcel): void {
    this.#parcels.set(parcel.id, parcel);
    this.#byCode.delete(parcel.code);
    this.#reminded.delete(parcel.id);
    this.#shelves.release(parcel.shelf);
  }

  #get(id: string): Parcel {
    const parcel = this.#parcels.get(id);
    if (parcel === undefined) throw new Error(`The journal speaks of ${id} before it was received`);
    return parcel;
  }
}
