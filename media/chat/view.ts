import type { ViewBanner, ViewWords } from "../../extension/chatView/messages";
import { Composer } from "./composer";
import { button, element, mark } from "../common/dom";
import { lastQuestion, type PageState } from "./state";
import { TurnElement, type Send } from "./turn";

/** Distance from the end at which the page still follows the answer. */
const followPx = 48;

export interface ViewOptions {
  readonly send: Send;
  readonly words: ViewWords;
  readonly draft: string;
  readonly onDraft: (text: string) => void;
}

/** State → page. Draws only what changed, and follows the answer unless the reader has scrolled away. */
export class View {
  readonly #send: Send;
  readonly #words: ViewWords;
  readonly #banner = element("div", "banner");
  readonly #turnList = element("div", "turns");
  readonly #welcome: HTMLElement;
  readonly #scroller: HTMLElement;
  readonly #spoken = element("div", "spoken");
  readonly #composer: Composer;
  readonly #turns = new Map<string, TurnElement>();
  #state: PageState | undefined;

  constructor(root: HTMLElement, options: ViewOptions) {
    this.#send = options.send;
    this.#words = options.words;
    this.#composer = new Composer({
      words: options.words,
      onAsk: (text) => this.#send({ kind: "ask", text }),
      onStop: () => this.#send({ kind: "stop" }),
      onAttach: () => this.#send({ kind: "attach" }),
      onDetach: (attachmentId) => this.#send({ kind: "detach", attachmentId }),
      lastQuestion: () => (this.#state === undefined ? "" : lastQuestion(this.#state)),
      onDraft: options.onDraft,
    });
    this.#welcome = this.#welcomePage();
    this.#scroller = element("main", "scroll", this.#welcome, this.#turnList);
    this.#banner.setAttribute("role", "status");
    this.#spoken.setAttribute("aria-live", "polite");
    root.append(this.#banner, this.#scroller, this.#composer.root, this.#spoken);
    window.addEventListener("focus", () => this.#composer.focus());
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.#state?.busy === true) this.#send({ kind: "stop" });
    });
    if (options.draft !== "") this.#composer.write(options.draft);
  }

  show(state: PageState): void {
    const old = this.#state;
    const follows = this.#isAtEnd() || state.turns.length !== old?.turns.length;
    this.#state = state;
    if (state.banner !== old?.banner) this.#showBanner(state.banner);
    this.#showTurns(state);
    this.#welcome.hidden = state.turns.length > 0;
    if (state.attachments !== old?.attachments) this.#composer.showAttachments(state.attachments);
    if (state.busy !== old?.busy) this.#composer.show(state.busy);
    this.#speak(old, state);
    if (follows) this.#scroller.scrollTop = this.#scroller.scrollHeight;
  }

  /** Puts a text where the question is written. */
  write(text: string): void {
    this.#composer.write(text);
    this.#composer.focus();
  }

  #showBanner(banner: ViewBanner): void {
    const { action } = banner;
    this.#banner.hidden = banner.text === "";
    this.#banner.classList.toggle("wants-action", action !== null);
    this.#banner.replaceChildren(element("span", "banner-text", banner.text));
    if (action === null) return;
    const onClick = (): void => this.#send({ kind: "action", command: action.command });
    this.#banner.append(button({ className: "primary", label: action.label, onClick }));
  }

  #showTurns(state: PageState): void {
    const kept = new Set(state.turns.map((turn) => turn.id));
    for (const [id, turn] of this.#turns) {
      if (kept.has(id)) continue;
      turn.root.remove();
      this.#turns.delete(id);
    }
    for (const turn of state.turns) {
      const known = this.#turns.get(turn.id);
      const shown = known ?? new TurnElement(turn, this.#send, this.#words);
      if (known === undefined) {
        this.#turns.set(turn.id, shown);
        this.#turnList.append(shown.root);
      }
      shown.show(turn, turn.state === "streaming" ? state.stage : "");
    }
  }

  #welcomePage(): HTMLElement {
    const { welcomeTitle, welcomeText, examples, hint } = this.#words;
    const asks = examples.map((text) =>
      button({ className: "example", label: text, onClick: () => this.#send({ kind: "ask", text }) }),
    );
    return element(
      "section",
      "welcome",
      mark(),
      element("h1", "", welcomeTitle),
      element("p", "", welcomeText),
      element("div", "examples", ...asks),
      element("p", "hint", hint),
    );
  }

  /** A screen reader hears when an answer begins and, once, the whole of it; not every piece. */
  #speak(old: PageState | undefined, state: PageState): void {
    const last = state.turns.at(-1);
    if (last === undefined || last.role !== "assistant" || old === undefined) return;
    const before = old.turns.find((turn) => turn.id === last.id);
    if (before === undefined && last.state === "streaming") this.#spoken.textContent = this.#words.answering;
    if (before?.state !== "streaming" || last.state === "streaming") return;
    this.#spoken.textContent = last.state === "done" ? last.markdown : `${last.markdown} ${last.footnote}`;
  }

  #isAtEnd(): boolean {
    const { scrollTop, scrollHeight, clientHeight } = this.#scroller;
    return scrollHeight - scrollTop - clientHeight <= followPx;
  }
}
