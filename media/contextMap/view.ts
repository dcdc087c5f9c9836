import type { FromMap, MapFile, MapGauge, MapWords, ToMap } from "../../extension/contextMap/messages";
import { element, filled } from "../common/dom";
import { layout, neighbour, type Direction, type Rect } from "./treemap";

/** A rectangle of this size has room for a name. */
const namedWidthPx = 44;
const namedHeightPx = 16;
/** And for the share below it. */
const sharedHeightPx = 34;

interface Drawn {
  readonly file: MapFile;
  readonly rect: Rect;
  readonly root: HTMLButtonElement;
}

/** State → page: gauges, the map, and a line about the file under the pointer or the focus. */
export class MapView {
  readonly #send: (message: FromMap) => void;
  readonly #words: MapWords;
  readonly #title = element("h1", "map-title");
  readonly #caption = element("p", "map-caption");
  readonly #gauges = element("dl", "gauges");
  readonly #map = element("div", "map");
  readonly #about = element("p", "map-about");
  #files: readonly MapFile[] = [];
  #drawn: readonly Drawn[] = [];
  /** The one that the Tab key leads to. */
  #current = 0;

  constructor(root: HTMLElement, words: MapWords, send: (message: FromMap) => void) {
    this.#send = send;
    this.#words = words;
    this.#map.setAttribute("role", "group");
    this.#map.setAttribute("aria-label", `${words.map}. ${words.help}`);
    this.#map.addEventListener("keydown", (event) => this.#keyDown(event));
    this.#about.textContent = words.help;
    root.append(
      element("header", "map-header", element("div", "", this.#title, this.#caption), this.#gauges),
      this.#map,
      this.#about,
    );
    new ResizeObserver(() => this.#draw()).observe(this.#map);
  }

  received(message: ToMap): void {
    if (message.kind === "gauges") return this.#showGauges(message.gauges);
    const { name, files, question } = message;
    this.#title.textContent = name;
    this.#caption.textContent = captionText(this.#words, files, question);
    this.#files = files;
    this.#draw();
  }

  #showGauges(gauges: readonly MapGauge[]): void {
    const shown = gauges.map(({ label, text, percent }) => {
      const bar = element("div", "gauge-bar");
      const fill = element("div", "gauge-fill");
      // Through the object model: the page's policy forbids style attributes.
      fill.style.width = `${percent}%`;
      bar.append(fill);
      return element("div", "gauge", element("dt", "", label), element("dd", "", text), bar);
    });
    this.#gauges.replaceChildren(...shown);
  }

  #draw(): void {
    const area = { x: 0, y: 0, width: this.#map.clientWidth, height: this.#map.clientHeight };
    const most = Math.max(...this.#files.map(({ share }) => share), Number.MIN_VALUE);
    const drawn: Drawn[] = [];
    const shown = layout(this.#files, area).map((box) => {
      if (box.kind === "folder") {
        const folder = element("div", "folder", box.hasTitle ? element("span", "folder-name", box.name) : "");
        place(folder, box.rect);
        return folder;
      }
      const root = this.#fileButton(box.file, box.name, box.rect, most);
      drawn.push({ file: box.file, rect: box.rect, root });
      return root;
    });
    this.#map.replaceChildren(...shown);
    this.#drawn = drawn;
    this.#current = Math.max(0, strongest(drawn));
    for (const [index, { root }] of drawn.entries()) root.tabIndex = index === this.#current ? 0 : -1;
  }

  #fileButton(file: MapFile, name: string, rect: Rect, most: number): HTMLButtonElement {
    const made = element("button", "file");
    made.type = "button";
    made.setAttribute("aria-label", this.#aboutText(file));
    if (rect.width >= namedWidthPx && rect.height >= namedHeightPx) made.append(element("span", "file-name", name));
    if (file.share > 0) {
      made.classList.add("is-lit");
      // The eye tells light apart by its root; the weakest must still be seen.
      made.style.setProperty("--light", String(0.18 + 0.82 * Math.sqrt(file.share / most)));
      if (rect.width >= namedWidthPx && rect.height >= sharedHeightPx) {
        made.append(element("span", "file-share", `${percentText(file.share)}%`));
      }
    }
    made.classList.toggle("is-pinned", file.isPinned);
    place(made, rect);
    const about = (): void => void (this.#about.textContent = this.#aboutText(file));
    made.addEventListener("pointerenter", about);
    made.addEventListener("focus", about);
    made.addEventListener("click", () =>
      this.#send({ kind: "open", path: file.path, line: Math.max(1, file.startLine) }),
    );
    return made;
  }

  #aboutText(file: MapFile): string {
    const { tokens, attention, lines, pinned, language } = this.#words;
    const parts = [file.path, filled(tokens, file.tokens.toLocaleString(language))];
    if (file.isPinned) parts.push(pinned);
    if (file.share > 0) {
      parts.push(filled(attention, percentText(file.share)), filled(lines, file.startLine, file.endLine));
    }
    return parts.join(" · ");
  }

  #keyDown(event: KeyboardEvent): void {
    const direction = arrows.get(event.key);
    if (direction === undefined) return;
    event.preventDefault();
    const rects = this.#drawn.map(({ rect }) => rect);
    const next = neighbour(rects, this.#current, direction);
    const [old, chosen] = [this.#drawn[this.#current], this.#drawn[next]];
    if (chosen === undefined) return;
    if (old !== undefined) old.root.tabIndex = -1;
    this.#current = next;
    chosen.root.tabIndex = 0;
    chosen.root.focus();
  }
}

const arrows: ReadonlyMap<string, Direction> = new Map([
  ["ArrowLeft", "left"],
  ["ArrowRight", "right"],
  ["ArrowUp", "up"],
  ["ArrowDown", "down"],
]);

function captionText(words: MapWords, files: readonly MapFile[], question: string): string {
  if (files.length === 0) return words.empty;
  return question === "" ? words.notLit : filled(words.litBy, question);
}

function strongest(drawn: readonly Drawn[]): number {
  return drawn.reduce((best, { file }, index) => (file.share > (drawn[best]?.file.share ?? -1) ? index : best), 0);
}

/** One digit where it says something: 0.4, 12. */
function percentText(share: number): string {
  const percent = 100 * share;
  return percent < 9.95 ? percent.toFixed(1) : String(Math.round(percent));
}

function place(made: HTMLElement, { x, y, width, height }: Rect): void {
  made.style.left = `${x}px`;
  made.style.top = `${y}px`;
  made.style.width = `${width}px`;
  made.style.height = `${height}px`;
}
