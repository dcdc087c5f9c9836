import type { Socket } from "node:net";
import { SocketMessageReader } from "vscode-jsonrpc/node";

/**
 * Reads the other side's messages from a socket.
 *
 * The library watches for a message of which only a part has come with a timer that renews itself and that disposing of
 * the reader does not end: a program whose connection closes in the middle of a message would never exit.
 */
export function messagesOf(socket: Socket): SocketMessageReader {
  const reader = new SocketMessageReader(socket);
  reader.partialMessageTimeout = 0;
  return reader;
}
