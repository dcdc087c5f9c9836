/**
 * Messages to addressees, sent in order and tried again when the gateway fails.
 *
 * The waiting time doubles from five seconds to at most fifteen minutes. After eight failures a message is given up and
 * counted in `dropped`; the parcel is not touched by that, since its addressee can still ask at the counter.
 */

import { formatCents } from "./fees.js";
import type { Addressee, Parcel } from "./types.js";

export interface Message {
  readonly to: Addressee;
  readonly text: string;
}

/** Sends one message, or rejects. */
export type Gateway = (message: Message) => Promise<void>;

/** Runs something later; a test hands in its own. */
export type Timer = (delayMs: number, action: () => void) => void;

const firstDelayMs = 5_000;
const delayMsMax = 15 * 60 * 1000;
const attemptsMax = 8;

export class Outbox {
  readonly #gateway: Gateway;
  readonly #timer: Timer;
  readonly #waiting: Message[] = [];
  #attempts = 0;
  #busy = false;
  dropped = 0;

  constructor(gateway: Gateway, timer: Timer) {
    this.#gateway = gateway;
    this.#timer = timer;
  }

  get length(): number {
    return this.#waiting.length;
  }

  post(message: Message): void {
    this.#waiting.push(message);
    if (!this.#busy) void this.#sendNext();
  }

  async #sendNext(): Promise<void> {
    const message = this.#waiting[0];
    if (message === undefined) {
      this.#busy = false;
      return;
    }
    this.#busy = true;
    try {
      await this.#gateway(message);
      this.#done();
    } catch {
      this.#attempts += 1;
      if (this.#attempts >= attemptsMax) {
        this.dropped += 1;
        this.#done();
        return;
      }
      this.#timer(retryDelayMs(this.#attempts), () => void this.#sendNext());
    }
  }

  #done(): void {
    this.#waiting.shift();
    this.#attempts = 0;
    void this.#sendNext();
  }
}

export function retryDelayMs(failures: number): number {
  return Math.min(firstDelayMs * 2 ** (failures - 1), delayMsMax);
}

export function arrivalText(parcel: Parcel): string {
  return `A parcel from ${parcel.courier} waits for you at the desk. Your code is ${parcel.code}. It is kept free of charge for 7 days.`;
}

export function reminderText(parcel: Parcel): string {
  return `Your parcel from ${parcel.courier} still waits at the desk. Code: ${parcel.code}.`;
}

export function overdueText(parcel: Parcel, centsPerDay: number): string {
  return `Your parcel from ${parcel.courier} is overdue. Storage now costs ${formatCents(centsPerDay)} a day.`;
}
