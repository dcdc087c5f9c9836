/** The parts of the product that benchmarks drive, bundled when one starts (see product.mjs). */
export { connectToEngine } from "../../engine/connect";
export { downloadModel } from "../../engine/models/download";
export { dataFolder, dataPaths } from "../../engine/paths";
export { protocolVersion } from "../../engine/protocol";
export {
  createMessageConnection,
  SocketMessageReader,
  SocketMessageWriter,
  CancellationTokenSource,
} from "vscode-jsonrpc/node";
