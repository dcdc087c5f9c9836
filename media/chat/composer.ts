import { button, element } from "./dom";

export interface ComposerOptions {
  readonly onAsk: (text: string) => void;
  readonly onStop: () => void;
  /** The question that the up arrow brings back. */
  readonly lastQuestion: () => string;
  /** Kept over a reload of the page. */
  readonly onDraft: (text: string) => void;
}

/** The box a question is written in. Enter asks, Shift+Enter breaks the line, Escape stops. */
export class Composer {
  readonly root: HTMLElement;
  readonly #input: HTMLTextAreaElement;
  readonly #ask: HTMLButtonElement;
  readonly #stop: HTMLButtonElement;
  readonly #options: ComposerOptions;
  #busy = false;

  constructor(options: ComposerOptions) {
    this.#options = options;
    this.#input = element("textarea", "input");
    this.#input.rows = 1;
    this.#input.placeholder = "Ask about the repository";
    this.#input.setAttribute("aria-label", "Ask Nosa about the repository. Enter asks, Shift+Enter makes a new line.");
    this.#input.addEventListener("input", () => this.#changed());
    this.#input.addEventListener("keydown", (event) => this.#keyDown(event));
    this.#ask = button({
      className: "primary round",
      label: "Ask (Enter)",
      icon: "send",
      iconOnly: true,
      onClick: () => this.#submit(),
    });
    this.#stop = button({
      className: "primary round",
      label: "Stop (Escape)",
      icon: "stop",
      iconOnly: true,
      onClick: options.onStop,
    });
    this.root = element("form", "composer", this.#input, this.#ask, this.#stop);
    this.root.addEventListener("submit", (event) => event.preventDefault());
    this.show(false);
  }

  show(busy: boolean): void {
    const hadFocus = document.activeElement === this.#stop || document.activeElement === this.#ask;
    this.#busy = busy;
    this.#stop.hidden = !busy;
    this.#ask.hidden = busy;
    this.#ask.disabled = this.#input.value.trim() === "";
    // The button that was pressed is gone: the next thing to do is to write.
    if (hadFocus) this.#input.focus();
  }

  write(text: string): void {
    this.#input.value = text;
    this.#input.setSelectionRange(text.length, text.length);
    this.#changed();
  }

  focus(): void {
    this.#input.focus();
  }

  #changed(): void {
    this.#ask.disabled = this.#input.value.trim() === "";
    this.#input.style.height = "auto";
    this.#input.style.height = `${this.#input.scrollHeight}px`;
    this.#options.onDraft(this.#input.value);
  }

  #keyDown(event: KeyboardEvent): void {
    if (event.key === "Escape" && this.#busy) {
      event.preventDefault();
      this.#options.onStop();
    } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      this.#submit();
    } else if (event.key === "ArrowUp" && this.#input.value === "") {
      event.preventDefault();
      this.write(this.#options.lastQuestion());
    }
  }

  #submit(): void {
    const text = this.#input.value.trim();
    if (text === "" || this.#busy) return;
    this.#options.onAsk(text);
    this.write("");
  }
}
