/** "Open {0}" with its holes filled. */
export function filled(words: string, ...values: readonly (string | number)[]): string {
  return values.reduce<string>((text, value, index) => text.replaceAll(`{${index}}`, String(value)), words);
}

/** Makes an element with a class and children; text goes in as text, never as HTML. */
export function element<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  className: string,
  ...children: readonly (Node | string)[]
): HTMLElementTagNameMap[K] {
  const made = document.createElement(tag);
  if (className !== "") made.className = className;
  made.append(...children);
  return made;
}

export interface ButtonOptions {
  readonly className: string;
  readonly label: string;
  readonly icon?: IconName;
  /** Shows the icon alone; the label is for tooltip and screen reader. */
  readonly iconOnly?: boolean;
  readonly onClick: () => void;
}

export function button(options: ButtonOptions): HTMLButtonElement {
  const made = element("button", options.className);
  made.type = "button";
  if (options.icon !== undefined) made.append(icon(options.icon));
  if (options.iconOnly === true) {
    made.title = options.label;
    made.setAttribute("aria-label", options.label);
  } else {
    made.append(options.label);
  }
  made.addEventListener("click", options.onClick);
  return made;
}

/** Paths in a box of 16 by 16, drawn as strokes in the text's colour. */
const iconPaths = {
  send: "M2.5 8h10M8.5 3.5 13 8l-4.5 4.5",
  stop: "M4 4h8v8H4z",
  copy: "M6 5.5h6.5v8H6zM3.5 10.5v-8H10",
  check: "M3 8.5 6.5 12 13 4.5",
  insert: "M8 2.5v7M5 7l3 3 3-3M3 13.5h10",
  file: "M4 2.5h5l3 3v8H4zM9 2.5v3h3",
  apply: "M3 3.5h6M3 7h4M3 10.5h3M8 11l4.5-4.5 1.5 1.5L9.5 12.5H8z",
  attach: "M8 3v10M3 8h10",
  close: "M4.5 4.5l7 7M11.5 4.5l-7 7",
  again: "M10.5 3l2.5 2.5L6 12.5l-3 .5.5-3z",
} as const;

export type IconName = keyof typeof iconPaths;

export function icon(name: IconName): SVGSVGElement {
  const svg = svgElement("svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("class", `icon icon-${name}`);
  svg.setAttribute("aria-hidden", "true");
  const path = svgElement("path");
  path.setAttribute("d", iconPaths[name]);
  svg.append(path);
  return svg;
}

/** The mark of the product: the blocks of a context, and the attended ones among them, which draw an N. */
export function mark(): SVGSVGElement {
  const svg = svgElement("svg");
  svg.setAttribute("viewBox", "0 0 48 48");
  svg.setAttribute("class", "mark");
  svg.setAttribute("aria-hidden", "true");
  for (const [row, lit] of [0b1001, 0b1011, 0b1101, 0b1001].entries()) {
    for (let column = 0; column < 4; column += 1) {
      const block = svgElement("rect");
      const isLit = ((lit >> column) & 1) === 1;
      block.setAttribute("x", String(5 + column * 10));
      block.setAttribute("y", String(5 + row * 10));
      block.setAttribute("width", "8");
      block.setAttribute("height", "8");
      block.setAttribute("rx", "2");
      block.setAttribute("class", isLit ? "lit" : "dim");
      svg.append(block);
    }
  }
  return svg;
}

function svgElement<K extends keyof SVGElementTagNameMap>(tag: K): SVGElementTagNameMap[K] {
  return document.createElementNS("http://www.w3.org/2000/svg", tag);
}
