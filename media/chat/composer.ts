import type { ViewAttachment, ViewWords } from "../../extension/chatView/messages";
import { button, element, filled } from "../common/dom";
import { SlashMenu } from "./slashMenu";

export interface ComposerOptions {
  readonly words: ViewWords;
  readonly onAsk: (text: string) => void;
  readonly onStop: () => void;
  readonly onAttach: () => void;
  readonly onDetach: (attachmentId: string) => void;
  /** The question that the up arrow brings back. */
  readonly lastQuestion: () => string;
  /** Kept over a reload of the page. */
  readonly onDraft: (text: string) => void;
}

/** The box a question is written in. Enter asks, Shift+Enter breaks the line, Escape stops, "/" lists commands, "#" attaches. */
export class Composer {
  readonly root: HTMLElement;
  readonly #input: HTMLTextAreaElement;
  readonly #ask: HTMLButtonElement;
  readonly #stop: HTMLButtonElement;
  readonly #chips: HTMLElement;
  readonly #menu: SlashMenu;
  readonly #options: ComposerOptions;
  #busy = false;
  #attached = 0;

  constructor(options: ComposerOptions) {
    this.#options = options;
    const { words } = options;
    this.#menu = new SlashMenu({
      label: words.commands,
      commands: words.slash,
      onChoose: (name) => this.write(`/${name} `),
    });
    this.#input = element("textarea", "input");
    this.#input.rows = 1;
    this.#input.placeholder = words.placeholder;
    this.#input.setAttribute("aria-label", words.inputLabel);
    this.#input.setAttribute("aria-controls", this.#menu.root.id);
    this.#input.addEventListener("input", () => this.#changed());
    this.#input.addEventListener("keydown", (event) => this.#keyDown(event));
    this.#input.addEventListener("blur", () => this.#closeMenu());
    const round = { className: "primary round", iconOnly: true } as const;
    this.#ask = button({ ...round, label: words.ask, icon: "send", onClick: () => this.#submit() });
    this.#stop = button({ ...round, label: words.stop, icon: "stop", onClick: options.onStop });
    const attach = button({
      className: "quiet",
      label: words.attach,
      icon: "attach",
      iconOnly: true,
      onClick: options.onAttach,
    });
    this.#chips = element("ul", "chips");
    this.#chips.setAttribute("aria-label", words.attachments);
    this.#chips.hidden = true;
    const row = element("div", "composer-row", attach, this.#input, this.#ask, this.#stop);
    this.root = element("form", "composer", this.#menu.root, this.#chips, row);
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

  showAttachments(attachments: readonly ViewAttachment[]): void {
    const { words, onDetach } = this.#options;
    const { value } = this.#input;
    if (attachments.length > this.#attached && value.endsWith("#")) this.write(value.slice(0, -1));
    this.#attached = attachments.length;
    const chips = attachments.map(({ id, label }) => {
      const onClick = (): void => {
        onDetach(id);
        this.#input.focus();
      };
      const remove = button({
        className: "quiet",
        label: filled(words.detach, label),
        icon: "close",
        iconOnly: true,
        onClick,
      });
      return element("li", "chip", element("span", "chip-label", label), remove);
    });
    this.#chips.replaceChildren(...chips);
    this.#chips.hidden = chips.length === 0;
  }

  write(text: string): void {
    this.#input.value = text;
    this.#input.setSelectionRange(text.length, text.length);
    this.#changed();
    this.#closeMenu();
  }

  focus(): void {
    this.#input.focus();
  }

  #changed(): void {
    const { value } = this.#input;
    this.#ask.disabled = value.trim() === "";
    this.#input.style.height = "auto";
    this.#input.style.height = `${this.#input.scrollHeight}px`;
    this.#menu.follow(value);
    this.#tellMenu();
    this.#options.onDraft(value);
  }

  #keyDown(event: KeyboardEvent): void {
    if (event.isComposing) return;
    if (this.#menu.isOpen && this.#menuKey(event.key)) {
      event.preventDefault();
      event.stopPropagation();
    } else if (event.key === "Escape" && this.#busy) {
      event.preventDefault();
      this.#options.onStop();
    } else if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      this.#submit();
    } else if (event.key === "#" && this.#atWordStart()) {
      // The sign stays for whoever turns away from the list; what is chosen takes its place.
      this.#options.onAttach();
    } else if (event.key === "ArrowUp" && this.#input.value === "") {
      event.preventDefault();
      this.write(this.#options.lastQuestion());
    }
  }

  /** True when the list took the key. */
  #menuKey(key: string): boolean {
    if (key === "ArrowDown") this.#menu.move(1);
    else if (key === "ArrowUp") this.#menu.move(-1);
    else if (key === "Enter" || key === "Tab") this.#menu.choose();
    else if (key === "Escape") this.#closeMenu();
    else return false;
    this.#tellMenu();
    return true;
  }

  #closeMenu(): void {
    this.#menu.close();
    this.#tellMenu();
  }

  /** What a screen reader is told of the list. */
  #tellMenu(): void {
    this.#input.setAttribute("aria-expanded", String(this.#menu.isOpen));
    this.#input.setAttribute("aria-activedescendant", this.#menu.activeId);
  }

  #atWordStart(): boolean {
    const before = this.#input.value.slice(0, this.#input.selectionStart);
    return before === "" || /\s$/.test(before);
  }

  #submit(): void {
    const text = this.#input.value.trim();
    if (text === "" || this.#busy) return;
    this.#options.onAsk(text);
    this.write("");
  }
}
