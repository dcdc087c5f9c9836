/** Extensions that show ghost text of their own: two of them at once overwrite each other. */
const others: Readonly<Record<string, string>> = {
  "github.copilot": "GitHub Copilot",
  "github.copilot-chat": "GitHub Copilot",
  "ggml-org.llama-vscode": "llama.vscode",
  "tabbyml.vscode-tabby": "Tabby",
  "continue.continue": "Continue",
  "codeium.codeium": "Windsurf",
  "tabnine.tabnine-vscode": "Tabnine",
  "supermaven.supermaven": "Supermaven",
  "sourcegraph.cody-ai": "Cody",
  "rjmacarthy.twinny": "twinny",
  "amazonwebservices.amazon-q-vscode": "Amazon Q",
};

/** Names of those that are there, each once. `ids` in any case. */
export function otherAssistants(ids: readonly string[]): readonly string[] {
  const names = ids.map((id) => others[id.toLowerCase()]).filter((name) => name !== undefined);
  return [...new Set(names)];
}
