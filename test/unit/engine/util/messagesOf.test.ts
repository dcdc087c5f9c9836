import * as net from "node:net";
import { once } from "node:events";
import { createMessageConnection, SocketMessageWriter } from "vscode-jsonrpc/node";
import { expect, test } from "vitest";
import { messagesOf } from "../../../../engine/util/messagesOf";

function timers(): number {
  return process.getActiveResourcesInfo().filter((resource) => resource === "Timeout").length;
}

test("a connection that closes in the middle of a message leaves no timer behind", async () => {
  const server = net.createServer((socket) => void socket.write('Content-Length: 100\r\n\r\n{"jsonrpc'));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const before = timers();
  const socket = net.connect((server.address() as net.AddressInfo).port, "127.0.0.1");
  const connection = createMessageConnection(messagesOf(socket), new SocketMessageWriter(socket));
  connection.listen();
  await once(socket, "data");
  connection.dispose();
  socket.destroy();
  server.close();
  await once(server, "close");
  expect(timers()).toBe(before);
});
