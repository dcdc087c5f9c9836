// Types a trace into the engine as an editor's client would, without the editor: documents, changes and requests for completions over the protocol.
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { nextBurst } from "../editor/trace.mjs";

/** LSP: the client asks because something was typed. */
const automatic = 2;

/**
 * Deletes each stretch of `stretches` (bench/editor/trace.mjs) and types it again in bursts; behind each burst a completion is asked for and waited for.
 * Some offers that are what comes next are taken. `pace` is the share of a person's pauses that is kept. Resolves with
 * `[{ms, text, stats, accepted}]` for `edits` edits: the wait, the first offer ("" for none), what the engine says of it, and whether it was taken.
 * `onSample` hears of each with those before it.
 */
export async function typeInto(engine, { root, files, stretches, edits, pace, onSample = () => undefined }) {
  const texts = new Map(files.map((file) => [file.path, file.text]));
  const samples = [];
  for (const stretch of stretches) {
    if (samples.length >= edits) break;
    const document = await open(engine, root, stretch, texts.get(stretch.path));
    let done = 0;
    while (done < stretch.text.length && samples.length < edits) {
      const { keys, accepts, lookMs } = nextBurst(stretch.text.slice(done), stretch.random);
      await sleep(pace * keys.reduce((sum, { gapMs }) => sum + gapMs, 0));
      await document.type(keys.map(({ key }) => key).join(""));
      done += keys.length;
      const sample = { ...(await document.complete()), accepted: false };
      samples.push(sample);
      onSample(samples);
      await sleep(pace * lookMs);
      if (!accepts || sample.text.trim() === "" || !stretch.text.startsWith(sample.text, done)) continue;
      sample.accepted = true;
      await document.type(sample.text);
      done += sample.text.length;
    }
    await document.close();
  }
  return samples;
}

async function open(engine, root, { path: name, startLine, endLine }, whole) {
  const uri = pathToFileURL(path.join(root, name)).href;
  const lines = whole.split("\n");
  const text = [...lines.slice(0, startLine), "", ...lines.slice(endLine)].join("\n");
  const languageId = name.endsWith(".ts") ? "typescript" : "javascript";
  await engine.notify("textDocument/didOpen", { textDocument: { uri, languageId, version: 1, text } });
  let version = 1;
  let typed = "";
  const cursor = () => {
    const above = typed.split("\n");
    return { line: startLine + above.length - 1, character: above.at(-1).length };
  };
  return {
    async type(words) {
      version += 1;
      const contentChanges = [{ range: { start: cursor(), end: cursor() }, text: words }];
      typed += words;
      await engine.notify("textDocument/didChange", { textDocument: { uri, version }, contentChanges });
    },
    async complete() {
      const startMs = performance.now();
      const [first] = await engine.request("textDocument/inlineCompletion", {
        textDocument: { uri },
        position: cursor(),
        context: { triggerKind: automatic },
      });
      return { ms: performance.now() - startMs, text: first?.insertText ?? "", stats: first?.data };
    },
    close: () => engine.notify("textDocument/didClose", { textDocument: { uri } }),
  };
}
