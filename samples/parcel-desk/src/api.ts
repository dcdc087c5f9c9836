/** The web interface of the desk: three routes, JSON in and out. */

import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { Desk } from "./desk.js";
import { formatCents } from "./fees.js";
import { type Delivery, DeskError } from "./types.js";

const bodyBytesMax = 16 * 1024;

/** A server that is not listening yet. */
export function createApi(desk: Desk): Server {
  return createServer((request, response) => {
    handle(desk, request).then(
      ([status, body]) => send(response, status, body),
      (error: unknown) => {
        if (error instanceof DeskError) send(response, error.status, { error: error.message });
        else send(response, 500, { error: "The desk made a mistake. It has been logged." });
      },
    );
  });
}

async function handle(desk: Desk, request: IncomingMessage): Promise<[number, unknown]> {
  switch (`${request.method} ${request.url}`) {
    case "POST /parcels": {
      const parcel = desk.receive(parseDelivery(await readJson(request)));
      // The code goes to the addressee alone, never to the courier.
      return [201, { id: parcel.id, shelf: parcel.shelf, size: parcel.size }];
    }
    case "POST /pickups": {
      const body = await readJson(request);
      const parcel = desk.collect(text(body, "code"), request.socket.remoteAddress ?? "");
      return [200, { id: parcel.id, shelf: parcel.shelf, fee: formatCents(parcel.feeCents ?? 0) }];
    }
    case "GET /capacity":
      return [200, { small: desk.free("small"), medium: desk.free("medium"), large: desk.free("large") }];
    default:
      throw new DeskError(404, "There is no such page.");
  }
}

async function readJson(request: IncomingMessage): Promise<Record<string, unknown>> {
  const pieces: Buffer[] = [];
  let bytes = 0;
  for await (const piece of request as AsyncIterable<Buffer>) {
    bytes += piece.length;
    if (bytes > bodyBytesMax) throw new DeskError(413, "The request is larger than 16 KiB.");
    pieces.push(piece);
  }
  try {
    const value: unknown = JSON.parse(Buffer.concat(pieces).toString("utf8"));
    if (typeof value === "object" && value !== null) return value as Record<string, unknown>;
  } catch {
    // Falls through to the refusal below.
  }
  throw new DeskError(400, "The request must be a JSON object.");
}

function parseDelivery(body: Record<string, unknown>): Delivery {
  const channel = text(body, "channel");
  if (channel !== "sms" && channel !== "mail") throw new DeskError(400, 'channel must be "sms" or "mail".');
  return {
    courier: text(body, "courier"),
    addressee: { name: text(body, "name"), contact: text(body, "contact"), channel },
    dimensions: {
      lengthMm: number(body, "lengthMm"),
      widthMm: number(body, "widthMm"),
      heightMm: number(body, "heightMm"),
    },
  };
}

function text(body: Record<string, unknown>, name: string): string {
  const value = body[name];
  if (typeof value !== "string" || value.trim() === "") throw new DeskError(400, `${name} must be a text.`);
  return value.trim();
}

function number(body: Record<string, unknown>, name: string): number {
  const value = body[name];
  if (typeof value !== "number" || !Number.isFinite(value)) throw new DeskError(400, `${name} must be a number.`);
  return value;
}

function send(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(`${JSON.stringify(body)}\n`);
}
