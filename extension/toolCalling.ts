/**
 * Tools in the words of the model: Qwen models are trained to see signatures in `<tools>`, to write calls as
 * `<tool_call>{"name": ..., "arguments": ...}</tool_call>`, and to read results in `<tool_response>`. Other families
 * follow the same instructions less surely.
 */

import type { ToolUse } from "../engine/protocol";
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

/** The same for the engine, which lets the model write no other calls than these; undefined for none. */
export function toolUse(tools: readonly Tool[], mustCall: boolean): ToolUse | undefined {
  if (tools.length === 0) return undefined;
  const functions = tools.map(({ name, schema }) => ({ name, schema }));
  return { open: openTag, close: closeTag, required: mustCall, functions };
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
const fence = "```";

/** How a call may begin and end. */
interface Form {
  readonly open: string;
  readonly close: string;
}

const tagged: Form = { open: openTag, close: closeTag };
const fenced: Form = { open: fence, close: fence };

/**
 * Takes an answer as it comes, in pieces, and gives text and calls. Text is passed on at once, except for what may
 * still become a call. What looks like a call but is none is text.
 *
 * Code models often write the call as a block of JSON instead of in its tags: a block counts when it names one of `tools`.
 */
export class CallReader {
  readonly #tools: ReadonlySet<string>;
  readonly #forms: readonly Form[];
  #held = "";

  constructor(tools: readonly Tool[] = []) {
    this.#tools = new Set(tools.map(({ name }) => name));
    this.#forms = tools.length > 0 ? [tagged, fenced] : [tagged];
  }

  push(piece: string): readonly Part[] {
    this.#held += piece;
    const parts: Part[] = [];
    for (;;) {
      const { form, at: opened } = this.#firstOpen();
      if (form === undefined) break;
      const closed = closeOf(form, this.#held, opened + form.open.length);
      if (closed < 0) {
        parts.push(...text(this.#held.slice(0, opened)));
        this.#held = this.#held.slice(opened);
        return parts;
      }
      const end = closed + form.close.length;
      parts.push(...text(this.#held.slice(0, opened)), this.#callOrText(form, this.#held.slice(opened, end)));
      this.#held = this.#held.slice(end);
    }
    const safe = this.#held.length - Math.max(...this.#forms.map(({ open }) => beginningOf(open, this.#held)));
    parts.push(...text(this.#held.slice(0, safe)));
    this.#held = this.#held.slice(safe);
    return parts;
  }

  /** What is left when the answer ends. A call whose end is missing counts when it is whole otherwise. */
  end(): readonly Part[] {
    const held = this.#held;
    this.#held = "";
    if (held === "") return [];
    const form = this.#forms.find(({ open }) => held.startsWith(open));
    return form === undefined ? text(held) : [this.#callOrText(form, held)];
  }

  #firstOpen(): { readonly form: Form | undefined; readonly at: number } {
    return this.#forms
      .map((form) => ({ form, at: this.#held.indexOf(form.open) }))
      .filter(({ at }) => at >= 0)
      .reduce<{ readonly form: Form | undefined; readonly at: number }>(
        (first, each) => (each.at < first.at ? each : first),
        { form: undefined, at: Number.MAX_SAFE_INTEGER },
      );
  }

  #callOrText(form: Form, whole: string): Part {
    const body = whole.slice(form.open.length);
    const inner = body.endsWith(form.close) ? body.slice(0, -form.close.length) : body;
    // A fence names its language first, and may hold the tags.
    const bare =
      form === fenced
        ? inner
            .replace(/^\w*\s*\n/, "")
            .replace(openTag, "")
            .replace(closeTag, "")
        : inner;
    const call = parsedCall(bare);
    const isCall = call !== undefined && (form === tagged || this.#tools.has(call.name));
    return isCall ? { kind: "call", call } : { kind: "text", text: whole };
  }
}

function text(value: string): readonly Part[] {
  return value === "" ? [] : [{ kind: "text", text: value }];
}

/** {"name", "arguments"}, or the same inside of "function", as interfaces of other vendors have it. */
function parsedCall(json: string): ToolCall | undefined {
  const value = parsed(json);
  const call = recordOf(recordOf(value)?.["function"]) ?? recordOf(value);
  const name = call?.["name"];
  const given = call?.["arguments"] ?? {};
  const input = recordOf(typeof given === "string" ? parsed(given) : given);
  return typeof name === "string" && input !== undefined ? { name, input } : undefined;
}

function parsed(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch {
    return undefined;
  }
}

function recordOf(value: unknown): Readonly<Record<string, unknown>> | undefined {
  const isRecord = typeof value === "object" && value !== null && !Array.isArray(value);
  return isRecord ? { ...value } : undefined;
}

/** Where the form closes: not within a string of its JSON. -1 when it does not yet. */
function closeOf(form: Form, held: string, from: number): number {
  let closed = held.indexOf(form.close, from);
  while (closed >= 0 && form === tagged && endsInString(held.slice(from, closed))) {
    closed = held.indexOf(form.close, closed + form.close.length);
  }
  return closed;
}

function endsInString(json: string): boolean {
  const quotes = json.replace(/\\./gsu, "").match(/"/gu)?.length ?? 0;
  return quotes % 2 === 1;
}

/** Length of the longest end of the text that begins the tag. */
function beginningOf(tag: string, value: string): number {
  for (let length = Math.min(tag.length - 1, value.length); length > 0; length -= 1) {
    if (tag.startsWith(value.slice(-length))) return length;
  }
  return 0;
}
