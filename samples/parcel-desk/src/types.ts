/** The nouns of the desk. Money is in cents, time in milliseconds since 1970, lengths in millimetres. */

export type Size = "small" | "medium" | "large";

export type ParcelState = "waiting" | "overdue" | "collected" | "returned";

export interface Dimensions {
  readonly lengthMm: number;
  readonly widthMm: number;
  readonly heightMm: number;
}

export interface Addressee {
  readonly name: string;
  /** Where messages go: a phone number for "sms", an address for "mail". */
  readonly contact: string;
  readonly channel: "sms" | "mail";
}

export interface Parcel {
  readonly id: string;
  readonly courier: string;
  readonly addressee: Addressee;
  readonly size: Size;
  readonly shelf: string;
  readonly code: string;
  readonly receivedAtMs: number;
  readonly state: ParcelState;
  /** Set when the parcel left the desk, either way. */
  readonly closedAtMs?: number;
  readonly feeCents?: number;
}

/** What a courier hands over. */
export interface Delivery {
  readonly courier: string;
  readonly addressee: Addressee;
  readonly dimensions: Dimensions;
}

export type Event =
  | { readonly kind: "received"; readonly atMs: number; readonly parcel: Parcel }
  | { readonly kind: "reminded"; readonly atMs: number; readonly parcelId: string }
  | { readonly kind: "overdue"; readonly atMs: number; readonly parcelId: string }
  | { readonly kind: "collected"; readonly atMs: number; readonly parcelId: string; readonly feeCents: number }
  | { readonly kind: "returned"; readonly atMs: number; readonly parcelId: string };

/** A refusal that the caller can do something about; `status` is the HTTP status it becomes. */
export class DeskError extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.name = "DeskError";
    this.status = status;
  }
}
