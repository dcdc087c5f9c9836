/**
 * A model hub on this machine's loopback, as far as a download needs one, and as badly behaved as a test asks.
 */

import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export interface HubBehaviour {
  /** Cuts each of the first answers off after so many bytes. */
  cutAfterBytes: number;
  cuts: number;
  /** Answers with everything where a range was asked for. */
  ignoresRanges: boolean;
  /** Sends other bytes than the interface describes, so many times. */
  corruptions: number;
  /** Answers every request with this status; 0 for none. */
  status: number;
}

export interface ModelHub {
  readonly address: string;
  readonly behaviour: HubBehaviour;
  /** `Range` headers of the requests for the file, "" where there was none; without the one-byte probe. */
  readonly ranges: string[];
  dispose(): Promise<void>;
}

export async function modelHub(file: {
  readonly name: string;
  readonly bytes: Buffer;
  readonly sha256: string;
}): Promise<ModelHub> {
  const behaviour: HubBehaviour = { cutAfterBytes: 0, cuts: 0, ignoresRanges: false, corruptions: 0, status: 0 };
  const ranges: string[] = [];

  const describe = (response: ServerResponse): void => {
    response.setHeader("Content-Type", "application/json");
    const size = file.bytes.length;
    response.end(
      JSON.stringify([
        { type: "file", path: file.name, size, oid: "0", lfs: { oid: file.sha256, size, pointerSize: 1 } },
      ]),
    );
  };
  const serve = (request: IncomingMessage, response: ServerResponse): void => {
    const range = request.headers.range ?? "";
    const [, first = "0", last = ""] = /^bytes=(\d+)-(\d*)$/.exec(range) ?? [];
    const start = behaviour.ignoresRanges && last === "" ? 0 : Number(first);
    const end = last === "" ? file.bytes.length - 1 : Number(last);
    if (last === "") ranges.push(range);
    response.setHeader("ETag", `"${file.sha256}"`);
    if (range !== "" && !(behaviour.ignoresRanges && last === "")) {
      response.statusCode = 206;
      response.setHeader("Content-Range", `bytes ${start}-${end}/${file.bytes.length}`);
    }
    const body = Buffer.from(file.bytes.subarray(start, end + 1));
    if (last === "" && behaviour.corruptions > 0) {
      behaviour.corruptions -= 1;
      body[body.length - 1] = (body[body.length - 1] ?? 0) ^ 1;
    }
    response.setHeader("Content-Length", body.length);
    if (last === "" && behaviour.cuts > 0) {
      behaviour.cuts -= 1;
      // Not at once: a reset can overtake bytes that the client has not read yet, and then nothing would have arrived.
      response.write(body.subarray(0, behaviour.cutAfterBytes), () => setTimeout(() => response.destroy(), 50));
    } else response.end(body);
  };

  const server = createServer((request, response) => {
    if (behaviour.status !== 0) {
      response.statusCode = behaviour.status;
      response.end();
    } else if (request.url?.includes("/paths-info/") === true) request.resume().on("end", () => describe(response));
    else if (request.url?.includes("/resolve/") === true) serve(request, response);
    else {
      response.statusCode = 404;
      response.end();
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    address: `http://127.0.0.1:${port}`,
    behaviour,
    ranges,
    dispose: () =>
      new Promise((resolve) => {
        server.closeAllConnections();
        server.close(() => resolve());
      }),
  };
}
