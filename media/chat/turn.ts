import type { FromView, ViewReference, ViewTurn } from "../../extension/chatView/messages";
import { button, element, icon } from "./dom";
import { markdownHtml } from "./markdown";

export type Send = (message: FromView) => void;

/** How long a copy button says that it has copied. */
const copiedMs = 1500;

/** One question or answer on the page. */
export class TurnElement {
  readonly root: HTMLElement;
  readonly #send: Send;
  readonly #body: HTMLElement;
  readonly #foot: HTMLElement;
  #shown: ViewTurn | undefined;
  #stage = "";

  constructor(turn: ViewTurn, send: Send) {
    this.#send = send;
    this.#body = element("div", "turn-body");
    this.#foot = element("div", "turn-foot");
    const isQuestion = turn.role === "user";
    const name = element("h2", "turn-name", isQuestion ? "You" : "Nosa");
    this.root = element("article", `turn turn-${turn.role}`, name, this.#body, this.#foot);
    this.root.setAttribute("aria-label", isQuestion ? "Your question" : "Answer");
  }

  /** Draws what changed. */
  show(turn: ViewTurn, stage: string): void {
    if (turn === this.#shown && stage === this.#stage) return;
    const isBodySame = turn.markdown === this.#shown?.markdown && turn.state === this.#shown.state;
    if (!isBodySame || stage !== this.#stage) this.#showBody(turn, stage);
    if (turn.references !== this.#shown?.references || turn.footnote !== this.#shown.footnote) this.#showFoot(turn);
    this.root.classList.toggle("is-streaming", turn.state === "streaming");
    this.root.classList.toggle("is-failed", turn.state === "failed");
    this.#shown = turn;
    this.#stage = stage;
  }

  #showBody(turn: ViewTurn, stage: string): void {
    if (turn.role === "user") {
      this.#body.textContent = turn.markdown;
      return;
    }
    if (turn.markdown === "") {
      this.#body.replaceChildren(...(turn.state === "streaming" ? [waiting(stage)] : []));
      return;
    }
    this.#body.innerHTML = markdownHtml(turn.markdown);
    for (const block of this.#body.querySelectorAll("pre")) this.#frameCode(block);
    for (const table of this.#body.querySelectorAll("table")) wrapInScroller(table);
  }

  /** Puts a bar with the language and two buttons above a block of code. */
  #frameCode(block: HTMLPreElement): void {
    const code = block.querySelector("code");
    const text = code?.textContent ?? block.textContent ?? "";
    const language = /language-(\S+)/.exec(code?.className ?? "")?.[1] ?? "";
    const copy = button({
      className: "quiet",
      label: "Copy",
      icon: "copy",
      iconOnly: true,
      onClick: () => {
        this.#send({ kind: "copy", text });
        confirmCopy(copy);
      },
    });
    const insert = button({
      className: "quiet",
      label: "Insert at cursor",
      icon: "insert",
      iconOnly: true,
      onClick: () => this.#send({ kind: "insert", text }),
    });
    const bar = element("div", "code-bar", element("span", "code-language", language), copy, insert);
    const frame = element("div", "code");
    block.replaceWith(frame);
    block.tabIndex = 0;
    frame.append(bar, block);
  }

  #showFoot(turn: ViewTurn): void {
    const parts: HTMLElement[] = [];
    if (turn.references.length > 0) parts.push(this.#references(turn.references));
    if (turn.footnote !== "") parts.push(element("p", "footnote", turn.footnote));
    this.#foot.replaceChildren(...parts);
  }

  #references(references: readonly ViewReference[]): HTMLElement {
    const most = Math.max(...references.map((reference) => reference.share), Number.MIN_VALUE);
    const list = element("ul", "references", ...references.map((reference) => this.#reference(reference, most)));
    list.setAttribute("aria-label", "Lines the answer drew on");
    return element("div", "drawn-from", element("h3", "references-title", "Drew on"), list);
  }

  #reference(reference: ViewReference, most: number): HTMLElement {
    const percent = Math.round(100 * reference.share);
    const bar = element("span", "share");
    const fill = element("span", "share-fill");
    // Through the object model: the page's policy forbids style attributes.
    fill.style.width = `${Math.max(4, (100 * reference.share) / most)}%`;
    bar.append(fill);
    const open = element("button", "reference", icon("file"), element("span", "reference-label", reference.label), bar);
    open.type = "button";
    open.title = `${reference.label}: ${percent}% of the attention the repository received`;
    open.setAttribute("aria-label", `Open ${reference.label}, ${percent}% of the attention`);
    open.addEventListener("click", () => this.#send({ kind: "open", referenceId: reference.id }));
    return element("li", "", open);
  }
}

function waiting(stage: string): HTMLElement {
  const dots = element("span", "dots", element("i", ""), element("i", ""), element("i", ""));
  dots.setAttribute("aria-hidden", "true");
  return element("p", "waiting", dots, stage === "" ? "Thinking" : stage);
}

function confirmCopy(copy: HTMLButtonElement): void {
  copy.replaceChildren(icon("check"));
  copy.title = "Copied";
  setTimeout(() => {
    copy.replaceChildren(icon("copy"));
    copy.title = "Copy";
  }, copiedMs);
}

function wrapInScroller(table: HTMLTableElement): void {
  const scroller = element("div", "scroller");
  table.replaceWith(scroller);
  scroller.append(table);
}
