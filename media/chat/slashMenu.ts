import { element } from "../common/dom";

export interface SlashMenuOptions {
  readonly label: string;
  readonly commands: readonly (readonly [name: string, description: string])[];
  readonly onChoose: (name: string) => void;
}

/**
 * The list of commands above the question while "/…" is its only word. The focus stays in the question; arrows move in
 * the list, which is tied to the question by `aria-activedescendant`.
 */
export class SlashMenu {
  readonly root: HTMLElement;
  readonly #options: SlashMenuOptions;
  #shown: readonly (readonly [name: string, description: string])[] = [];
  #active = 0;

  constructor(options: SlashMenuOptions) {
    this.#options = options;
    this.root = element("ul", "slash-menu");
    this.root.id = "slash-menu";
    this.root.setAttribute("role", "listbox");
    this.root.setAttribute("aria-label", options.label);
    this.root.hidden = true;
  }

  get isOpen(): boolean {
    return !this.root.hidden;
  }

  /** Id of the entry that Enter would take; "" while the list is closed. */
  get activeId(): string {
    return this.isOpen ? `slash-${this.#shown[this.#active]?.[0] ?? ""}` : "";
  }

  /** Opens, narrows or closes the list by what stands in the question. */
  follow(text: string): void {
    this.#shown = matching(this.#options.commands, text);
    this.#active = 0;
    this.root.hidden = this.#shown.length === 0;
    this.#draw();
  }

  move(by: number): void {
    const count = this.#shown.length;
    this.#active = (this.#active + by + count) % Math.max(1, count);
    this.#draw();
  }

  choose(): void {
    const name = this.#shown[this.#active]?.[0];
    if (name !== undefined) this.#options.onChoose(name);
  }

  close(): void {
    this.root.hidden = true;
  }

  #draw(): void {
    const entries = this.#shown.map(([name, description], index) => {
      const entry = element("li", "slash-entry", element("b", "", `/${name}`), element("span", "", description));
      entry.id = `slash-${name}`;
      entry.setAttribute("role", "option");
      entry.setAttribute("aria-selected", String(index === this.#active));
      // Pressing must not take the focus out of the question.
      entry.addEventListener("mousedown", (event) => event.preventDefault());
      entry.addEventListener("click", () => this.#options.onChoose(name));
      return entry;
    });
    this.root.replaceChildren(...entries);
    entries[this.#active]?.scrollIntoView({ block: "nearest" });
  }
}

/** Commands that what was typed may become: "/e" → explain. None once a space follows. */
export function matching<C extends readonly [name: string, description: string]>(
  commands: readonly C[],
  text: string,
): readonly C[] {
  const typed = /^\/(\w*)$/.exec(text)?.[1];
  return typed === undefined ? [] : commands.filter(([name]) => name.startsWith(typed));
}
