/**
 * A model's own chat template, opened up: where the system text goes, and what stands between the messages after it.
 *
 * The template is rendered with markers instead of texts and cut at them, so what a user or a file wrote never passes through it and can neither
 * break it nor forge a turn.
 */

import { Template } from "@huggingface/jinja";

export type Role = "user" | "assistant";

export interface ChatTemplate {
  /** What opens a conversation, up to where the system text goes; the token that begins a sequence stands elsewhere and is not part of it. */
  readonly opening: string;
  /**
   * What stands before each message's text, and behind the last one; one more than there are roles. The first closes the system text, the last asks for
   * an answer. `roles` alternates and begins and ends with "user".
   */
  between(roles: readonly Role[]): readonly string[];
}

export interface TemplateMarks {
  /** Text of the token that begins a sequence, "" when the model wants none. */
  readonly bos: string;
  readonly eos: string;
}

interface Message {
  readonly role: Role | "system";
  readonly content: string;
}

/** Renders messages with markers for texts; undefined when a template refuses or loses one. */
type Render = (roles: readonly Role[]) => readonly string[] | undefined;

/** A model without a template, or with one that cannot be used, gets plain words. */
export function chatTemplate(source: string, marks: TemplateMarks): ChatTemplate {
  const renders = source === "" ? [] : [withSystemTurn(source, marks), withSystemInFirstTurn(source, marks)];
  for (const render of renders) {
    const opening = render(["user"])?.[0];
    if (opening === undefined || render(["user", "assistant", "user"]) === undefined) continue;
    return {
      opening: opening.startsWith(marks.bos) ? opening.slice(marks.bos.length) : opening,
      between: (roles) => render(roles)?.slice(1) ?? plainWords.between(roles),
    };
  }
  return plainWords;
}

const plainWords: ChatTemplate = {
  opening: "\n",
  between: (roles) => [...roles.map((role) => (role === "user" ? "\n\nQuestion: " : "\n\nAnswer: ")), "\n\nAnswer:"],
};

function marker(index: number): string {
  return `@@nosa-text-${index}@@`;
}

function withSystemTurn(source: string, marks: TemplateMarks): Render {
  const template = parsed(source);
  return (roles) =>
    rendered(template, marks, [
      { role: "system", content: marker(0) },
      ...roles.map((role, at) => ({ role, content: marker(at + 1) })),
    ]);
}

/** For templates that know no system role: its text opens the first message. */
function withSystemInFirstTurn(source: string, marks: TemplateMarks): Render {
  const template = parsed(source);
  return (roles) =>
    rendered(
      template,
      marks,
      roles.map((role, at) => ({ role, content: at === 0 ? `${marker(0)}\n\n${marker(1)}` : marker(at + 1) })),
    );
}

function parsed(source: string): Template | undefined {
  try {
    return new Template(source);
  } catch {
    return undefined;
  }
}

function rendered(
  template: Template | undefined,
  marks: TemplateMarks,
  messages: readonly Message[],
): readonly string[] | undefined {
  let text: string | undefined;
  try {
    text = template?.render({
      messages,
      add_generation_prompt: true,
      bos_token: marks.bos,
      eos_token: marks.eos,
    });
  } catch {
    // Templates refuse, with an exception, roles that their model was not taught.
  }
  if (text === undefined) return undefined;
  const markers = messages.flatMap(({ content }) => content.match(/@@nosa-text-\d+@@/g) ?? []);
  const pieces: string[] = [];
  for (const each of markers) {
    const at = text.indexOf(each);
    if (at < 0) return undefined;
    pieces.push(text.slice(0, at));
    text = text.slice(at + each.length);
  }
  return text.includes("@@nosa-text-") ? undefined : [...pieces, text];
}
