import { EventEmitter, type Disposable, type Memento } from "vscode";
import type { Place } from "../engine/protocol";
import { Scope } from "./util/disposables";

/** Most places of one repository that stay pinned: what everything attends to always is no selection any more. */
export const pinsMax = 32;

const storeKey = "nosa.pins";

/** An edit of a document, as far as lines go. */
export interface LinesReplaced {
  /** From 1, the last one included. */
  readonly first: number;
  readonly last: number;
  /** How many stand there now; at least one. */
  readonly lines: number;
  /** Whether nothing is left of the first line as it was. */
  readonly isFirstGone: boolean;
}

/** Files, folders and lines that every question of this workspace keeps in sight. Owned here, kept with the workspace. */
export class Pins implements Disposable {
  readonly #scope = new Scope();
  readonly #changed = this.#scope.add(new EventEmitter<void>());
  readonly onDidChange = this.#changed.event;
  readonly #store: Pick<Memento, "get" | "update">;

  constructor(store: Pick<Memento, "get" | "update">) {
    this.#store = store;
  }

  /** In the order they were pinned. */
  of(root: string): readonly Place[] {
    return this.#all()[root] ?? [];
  }

  /** Whether all of a file or folder is pinned; a folder's path ends with a slash. */
  has(root: string, path: string): boolean {
    return this.of(root).some((pin) => isSame(pin, wholeOf(path)));
  }

  /** Whether lines of any file are pinned. */
  get hasLines(): boolean {
    return Object.values(this.#all()).some((pins) => pins.some(({ startLine }) => startLine > 0));
  }

  /** What is pinned of a file line by line, from the top. */
  linesOf(root: string, path: string): readonly Place[] {
    const own = this.of(root).filter((pin) => pin.path === path && pin.startLine > 0);
    return own.toSorted((a, b) => a.startLine - b.startLine || a.endLine - b.endLine);
  }

  /** Lines that meet others that are pinned become one piece with them. False when there are too many already. */
  async add(root: string, place: Place): Promise<boolean> {
    const pinned = this.of(root);
    if (pinned.some((pin) => isSame(pin, place))) return true;
    const [met, others] = [pinned.filter((pin) => meets(pin, place)), pinned.filter((pin) => !meets(pin, place))];
    if (others.length >= pinsMax) return false;
    const startLine = Math.min(place.startLine, ...met.map((pin) => pin.startLine));
    const endLine = Math.max(place.endLine, ...met.map((pin) => pin.endLine));
    await this.#set(root, [...others, { path: place.path, startLine, endLine }]);
    return true;
  }

  async remove(root: string, place: Place): Promise<void> {
    await this.#set(
      root,
      this.of(root).filter((pin) => !isSame(pin, place)),
    );
  }

  /** Lets pinned lines of a file follow its text. What was deleted whole is not pinned any more. */
  async follow(root: string, path: string, replaced: readonly LinesReplaced[]): Promise<void> {
    const before = this.of(root);
    const after = before.flatMap((pin) => {
      if (pin.path !== path || pin.startLine === 0) return [pin];
      return replaced.reduce<readonly Place[]>((pins, each) => pins.flatMap((one) => moved(one, each)), [pin]);
    });
    if (JSON.stringify(before) !== JSON.stringify(after)) await this.#set(root, after);
  }

  dispose(): void {
    this.#scope.dispose();
  }

  async #set(root: string, places: readonly Place[]): Promise<void> {
    await this.#store.update(storeKey, { ...this.#all(), [root]: places });
    this.#changed.fire();
  }

  /** What was kept may come from another version: what does not fit counts for nothing. */
  #all(): Readonly<Record<string, readonly Place[]>> {
    const kept: unknown = this.#store.get(storeKey);
    if (typeof kept !== "object" || kept === null) return {};
    return Object.fromEntries(
      Object.entries(kept).map(([root, pins]) => [root, Array.isArray(pins) ? pins.flatMap(parsePin) : []]),
    );
  }
}

/** All of a file, or of a folder. */
export function wholeOf(path: string): Place {
  return { path, startLine: 0, endLine: 0 };
}

/** Older versions kept paths. */
function parsePin(kept: unknown): readonly Place[] {
  if (typeof kept === "string") return [wholeOf(kept)];
  if (typeof kept !== "object" || kept === null) return [];
  const { path, startLine, endLine } = kept as Partial<Record<keyof Place, unknown>>;
  if (typeof path !== "string" || !isLine(startLine) || !isLine(endLine) || startLine > endLine) return [];
  return (startLine === 0) === (endLine === 0) ? [{ path, startLine, endLine }] : [];
}

function isLine(value: unknown): value is number {
  return typeof value === "number" && Number.isInteger(value) && value >= 0;
}

function isSame(a: Place, b: Place): boolean {
  return a.path === b.path && a.startLine === b.startLine && a.endLine === b.endLine;
}

function meets(a: Place, b: Place): boolean {
  return (
    a.path === b.path && a.startLine > 0 && b.startLine > 0 && a.startLine <= b.endLine && b.startLine <= a.endLine
  );
}

/** A pin after an edit of its file: none when nothing is left of it. */
function moved(pin: Place, { first, last, lines, isFirstGone }: LinesReplaced): readonly Place[] {
  const more = lines - (last - first + 1);
  const bottom = first + lines - 1;
  const piece = (startLine: number, endLine: number): readonly Place[] =>
    startLine > endLine ? [] : [{ ...pin, startLine, endLine }];
  if (first > pin.endLine) return [pin];
  if (last < pin.startLine) return piece(pin.startLine + more, pin.endLine + more);
  const isSwallowed = last > pin.endLine && (first < pin.startLine || (first === pin.startLine && isFirstGone));
  if (isSwallowed) return lines === 1 ? [] : piece(Math.min(pin.startLine, bottom), Math.min(pin.endLine, bottom));
  const startLine = first < pin.startLine ? bottom : pin.startLine;
  const endLine = last > pin.endLine ? (isFirstGone ? first - 1 : first) : pin.endLine + more;
  return piece(startLine, endLine);
}
