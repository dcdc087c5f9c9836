/**
 * Tools in the words of the model: Qwen models are trained to see signatures in `<tools>`, to write calls as
 * `<tool_call>{"name": ..., "arguments": ...}</tool_call>`, and to read results in `<tool_response>`. Other families
 * follow the same instructions less surely.
 */

import { schemaProblem } from "./jsonSchema";

export interface Tool {
  readonly name: string;
  readonly description: string;
  /** JSON schema of the arguments. */
  readonly schema: object;
}

export interface ToolCall {
  readonly name: string;
  readonly input: object;
}

/** What the model is told about the tools; "" for none. */
export function toolInstructions(tools: readonly Tool[], mustCall: boolean): string {
  if (tools.length === 0) return "";
  const signatures = tools.map(({ name, description, schema }) =>
    JSON.stringify({ type: "function", function: { name, description, parameters: schema } }),
  );
  return [
    "You may call one or more of these functions to help with the request:",
    `<tools>\n${signatures.join("\n")}\n</tools>`,
    `To call a function, write ${openTag}{"name": "its name", "arguments": {...}}${closeTag} and nothing after it.`,
    mustCall ? "Answer with a function call." : "Answer in words when no function is needed.",
  ].join("\n");
}

/** A call as it stood in an earlier answer. */
export function callText(call: ToolCall): string {
  return `${openTag}\n${JSON.stringify({ name: call.name, arguments: call.input })}\n${closeTag}`;
}

/** What a tool gave back, as the model reads it. */
export function responseText(text: string): string {
  return `<tool_response>\n${text}\n</tool_response>`;
}

/** Why a call cannot be made, as a sentence for the model; undefined when it can. */
export function callProblem(call: ToolCall, tools: readonly Tool[]): string | undefined {
  const tool = tools.find(({ name }) => name === call.name);
  if (tool !== undefined) return schemaProblem(tool.schema, call.input);
  return `there is no function ${call.name}; there are ${tools.map(({ name }) => name).join(", ")}`;
}

/** What the model is told after a call that cannot be made. */
export function correctionText(problem: string): string {
  return `That call was not made: ${problem}. Write the whole call again, corrected.`;
}

export type Part =
  { readonly kind: "text"; readonly text: string } | { readonly kind: "call"; readonly call: ToolCall };

const openTag = "<tool_call>";
const closeTag = "</tool_call>";

/**
 * Takes an answer as it comes, in pieces, and gives text and calls. Text is passed on at once, except for what may
 * still become a tag. What looks like a call but is none is text.
 */
export class CallReader {
  #held = "";

  push(piece: string): readonly Part[] {
    this.#held += piece;
    const parts: Part[] = [];
    for (;;) {
      const opened = this.#held.indexOf(openTag);
      if (opened < 0) break;
      const closed = this.#held.indexOf(closeTag, opened);
      if (closed < 0) {
        parts.push(...text(this.#held.slice(0, opened)));
        this.#held = this.#held.slice(opened);
        return parts;
      }
      const end = closed + closeTag.length;
      parts.push(...text(this.#held.slice(0, opened)), callOrText(this.#held.slice(opened, end)));
      this.#held = this.#held.slice(end);
    }
    const safe = this.#held.length - beginningOfTag(this.#held);
    parts.push(...text(this.#held.slice(0, safe)));
    this.#held = this.#held.slice(safe);
    return parts;
  }

  /** What is left when the answer ends. A call whose end tag is missing counts when it is whole otherwise. */
  end(): readonly Part[] {
    const held = this.#held;
    this.#held = "";
    if (held === "") return [];
    return held.startsWith(openTag) ? [callOrText(held)] : text(held);
  }
}

function text(value: string): readonly Part[] {
  return value === "" ? [] : [{ kind: "text", text: value }];
}

function callOrText(tagged: string): Part {
  const inner = tagged.slice(openTag.length).replace(closeTag, "");
  const call = parsedCall(inner);
  return call === undefined ? { kind: "text", text: tagged } : { kind: "call", call };
}

function parsedCall(json: string): ToolCall | undefined {
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch {
    return undefined;
  }
  if (typeof value !== "object" || value === null || !("name" in value)) return undefined;
  const input: unknown = "arguments" in value ? value.arguments : {};
  if (typeof value.name !== "string" || typeof input !== "object" || input === null) return undefined;
  return { name: value.name, input };
}

/** Length of the longest end of the text that begins the open tag. */
function beginningOfTag(value: string): number {
  for (let length = Math.min(openTag.length - 1, value.length); length > 0; length -= 1) {
    if (openTag.startsWith(value.slice(-length))) return length;
  }
  return 0;
}
