import type { FromView, ViewReference, ViewTurn, ViewWords } from "../../extension/chatView/messages";
import { button, element, filled, icon } from "../common/dom";
import { markdownHtml } from "./markdown";

export type Send = (message: FromView) => void;

/** How long a copy button says that it has copied. */
const copiedMs = 1500;

/** One question or answer on the page. */
export class TurnElement {
  readonly root: HTMLElement;
  readonly #send: Send;
  readonly #words: ViewWords;
  readonly #id: string;
  readonly #body: HTMLElement;
  readonly #foot: HTMLElement;
  #shown: ViewTurn | undefined;
  #stage = "";

  constructor(turn: ViewTurn, send: Send, words: ViewWords) {
    this.#send = send;
    this.#words = words;
    this.#id = turn.id;
    this.#body = element("div", "turn-body");
    this.#foot = element("div", "turn-foot");
    const isQuestion = turn.role === "user";
    const name = element("h2", "turn-name", isQuestion ? words.you : "Nosa");
    this.root = element("article", `turn turn-${turn.role}`, name, this.#body, this.#foot);
    this.root.setAttribute("aria-label", isQuestion ? words.yourQuestion : words.answer);
  }

  /** Draws what changed. */
  show(turn: ViewTurn, stage: string): void {
    if (turn === this.#shown && stage === this.#stage) return;
    const isBodySame = turn.markdown === this.#shown?.markdown && turn.state === this.#shown.state;
    if (!isBodySame || stage !== this.#stage) this.#showBody(turn, stage);
    if (turn.role === "user") {
      if (turn.attachments !== this.#shown?.attachments) this.#showQuestionFoot(turn);
    } else if (turn.references !== this.#shown?.references || turn.footnote !== this.#shown.footnote) {
      this.#showFoot(turn);
    }
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
      this.#body.replaceChildren(
        ...(turn.state === "streaming" ? [waiting(stage === "" ? this.#words.thinking : stage)] : []),
      );
      return;
    }
    this.#body.innerHTML = markdownHtml(turn.markdown);
    for (const block of this.#body.querySelectorAll("pre")) this.#frameCode(block);
    for (const table of this.#body.querySelectorAll("table")) wrapInScroller(table);
  }

  /** Puts a bar with the language and buttons above a block of code. */
  #frameCode(block: HTMLPreElement): void {
    const code = block.querySelector("code");
    const text = code?.textContent ?? block.textContent ?? "";
    const language = /language-(\S+)/.exec(code?.className ?? "")?.[1] ?? "";
    const copy = button({
      className: "quiet",
      label: this.#words.copy,
      icon: "copy",
      iconOnly: true,
      onClick: () => {
        this.#send({ kind: "copy", text });
        confirmCopy(copy, this.#words);
      },
    });
    const insert = button({
      className: "quiet",
      label: this.#words.insert,
      icon: "insert",
      iconOnly: true,
      onClick: () => this.#send({ kind: "insert", text }),
    });
    const apply = button({
      className: "quiet",
      label: this.#words.apply,
      icon: "apply",
      iconOnly: true,
      onClick: () => this.#send({ kind: "apply", turnId: this.#id, text }),
    });
    const bar = element("div", "code-bar", element("span", "code-language", language), apply, insert, copy);
    const frame = element("div", "code");
    block.replaceWith(frame);
    block.tabIndex = 0;
    frame.append(bar, block);
  }

  /** What the question is about, and the way to ask it differently. */
  #showQuestionFoot(turn: ViewTurn): void {
    const again = button({
      className: "quiet",
      label: this.#words.askAgain,
      icon: "again",
      iconOnly: true,
      onClick: () => this.#send({ kind: "fork", turnId: turn.id }),
    });
    const chips = turn.attachments.map((label) => element("li", "chip", element("span", "chip-label", label)));
    const list = element("ul", "chips", ...chips);
    list.setAttribute("aria-label", this.#words.attachments);
    this.#foot.replaceChildren(...(chips.length > 0 ? [list] : []), again);
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
    list.setAttribute("aria-label", this.#words.drewOnLabel);
    return element("div", "drawn-from", element("h3", "references-title", this.#words.drewOn), list);
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
    open.title = filled(this.#words.openReference, reference.label, percent);
    open.setAttribute("aria-label", open.title);
    open.addEventListener("click", () => this.#send({ kind: "open", referenceId: reference.id }));
    return element("li", "", open);
  }
}

function waiting(stage: string): HTMLElement {
  const dots = element("span", "dots", element("i", ""), element("i", ""), element("i", ""));
  dots.setAttribute("aria-hidden", "true");
  return element("p", "waiting", dots, stage);
}

function confirmCopy(copy: HTMLButtonElement, words: ViewWords): void {
  copy.replaceChildren(icon("check"));
  copy.title = words.copied;
  setTimeout(() => {
    copy.replaceChildren(icon("copy"));
    copy.title = words.copy;
  }, copiedMs);
}

function wrapInScroller(table: HTMLTableElement): void {
  const scroller = element("div", "scroller");
  table.replaceWith(scroller);
  scroller.append(table);
}
