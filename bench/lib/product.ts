/** The parts of the product that benchmarks drive, bundled when one starts (see product.mjs). */
export { textBehind } from "../../engine/completions/behind";
export { liveLines } from "../../engine/completions/live";
export { suffixTokensFor } from "../../engine/completions/window";
export { defaultSettings } from "../../engine/config";
export { connectToEngine } from "../../engine/connect";
export { segmentKey } from "../../engine/contexts/context";
export { namesAskedFor } from "../../engine/chat/names";
export { blocksNamed } from "../../engine/contexts/named";
export { SegmentText } from "../../engine/contexts/segmentText";
export { noFocus, selectionBudget, selectionFor } from "../../engine/contexts/selection";
export { MassSum } from "../../engine/generation/masses";
export { byUsefulness } from "../../engine/indexing/usefulness";
export { neutralQuestions } from "../../engine/generation/neutralAttention";
export { references } from "../../engine/generation/references";
export { adapterFor } from "../../engine/models/adapters";
export { downloadModel } from "../../engine/models/download";
export { dataFolder, dataPaths } from "../../engine/paths";
export { promptFormat } from "../../engine/prompts/format";
export { protocolVersion } from "../../engine/protocol";
export { planSegments } from "../../engine/repository/segments";
export { modelText } from "../../engine/sessions/modelText";
export { joined, Tokenizer } from "../../engine/tokenizer/tokenizer";
export {
  createMessageConnection,
  SocketMessageReader,
  SocketMessageWriter,
  CancellationTokenSource,
} from "vscode-jsonrpc/node";
