import {
  InlineCompletionItem,
  InlineCompletionTriggerKind,
  type Position,
  Range,
  type CancellationToken,
  type Command,
  type InlineCompletionContext,
  type InlineCompletionList,
  type TextDocument,
} from "vscode";
import type { Middleware } from "vscode-languageclient/node";
import type { CompletionSettings, CompletionStats } from "../../engine/protocol";
import { isCancellation } from "../errors";
import { restOfOffer, type Offer } from "./offer";
import { Pace } from "./pace";
import { completesIn } from "./where";

type Completions = InlineCompletionItem[] | InlineCompletionList;
type AskEngine = Parameters<NonNullable<Middleware["provideInlineCompletionItems"]>>[4];

export interface CompletionMiddlewareOptions {
  readonly settings: () => CompletionSettings;
  /** Whether typing is to be left alone for a while. */
  readonly quiet: () => boolean;
  /** Whether the document is what the difference in front shows. */
  readonly isCompared: (document: TextDocument) => boolean;
  /** False while there is no model: then every request would fail. */
  readonly isReady: () => boolean;
  readonly nowMs: () => number;
  /** Resolves after the time, or at once when the token is cancelled. */
  readonly pause: (ms: number, token: CancellationToken) => Promise<void>;
  /** Told of a failure, and not again while the same one repeats. */
  readonly onError: (error: Error) => void;
  /** Told what an answer cost, how long the user waited for it, and how much of that for the engine; nothing was offered when `stats` is undefined. */
  readonly onAnswer: (stats: CompletionStats | undefined, totalMs: number, engineMs: number) => void;
}

/**
 * Stands between the editor's request for ghost text and the engine: asks only where completions belong, waits for a
 * pause in the typing, and lets what was offered follow the typing. Everything else is the engine's.
 */
export class CompletionMiddleware {
  readonly #options: CompletionMiddlewareOptions;
  readonly #pace = new Pace();
  #offer: Offer | undefined;
  /** Where the last offer ended that was accepted whole. */
  #accepted: Pick<Offer, "uri" | "before"> | undefined;
  /** What accepting the offer, or the rest of it, runs. */
  #onAccept: Command | undefined;
  #lastError = "";

  constructor(options: CompletionMiddlewareOptions) {
    this.#options = options;
  }

  /** Bound, as the language client calls it with no `this`. */
  readonly provideInlineCompletionItems = async (
    document: TextDocument,
    position: Position,
    context: InlineCompletionContext,
    token: CancellationToken,
    next: AskEngine,
  ): Promise<Completions | null> => {
    const { nowMs, pause, onAnswer } = this.#options;
    if (!this.#belongsIn(document)) return null;

    const startedAtMs = nowMs();
    const { version } = document;
    if (context.triggerKind === InlineCompletionTriggerKind.Automatic) {
      if (!this.answersTyping(document)) return null;
      this.#pace.keyPressed(startedAtMs);
      const rest = this.#restOfOffer(document, position, context);
      if (rest !== undefined) {
        const stats = statsOf(this.#onAccept);
        if (stats !== undefined) onAnswer({ ...stats, ...costsNothing }, nowMs() - startedAtMs, 0);
        return [new InlineCompletionItem(rest, new Range(position, position), this.#onAccept)];
      }
      if (!this.#awaitsNext(document, position)) await pause(this.#pace.delayMs, token);
    }
    // The next key is often here before the editor's word that nobody waits any more; the position is not of that text.
    const isStale = (): boolean => token.isCancellationRequested || document.version !== version;
    if (isStale()) return null;

    const askedAtMs = nowMs();
    try {
      const completions = (await next(document, position, context, token)) ?? null;
      if (isStale()) return null;
      const answeredAtMs = nowMs();
      this.#pace.answered(answeredAtMs - askedAtMs);
      this.#remember(document, position, completions);
      onAnswer(statsOf(firstOf(completions)?.command), answeredAtMs - startedAtMs, answeredAtMs - askedAtMs);
      this.#lastError = "";
      return completions;
    } catch (error) {
      this.#fail(error);
      return null;
    }
  };

  /** Whether what is typed into the document is answered now. */
  answersTyping(document: TextDocument): boolean {
    const { settings, quiet } = this.#options;
    return !quiet() && settings().automatic && this.#belongsIn(document);
  }

  #belongsIn(document: TextDocument): boolean {
    const { settings, isCompared, isReady } = this.#options;
    const place = { scheme: document.uri.scheme, languageId: document.languageId };
    return completesIn(place, settings()) && !isCompared(document) && isReady();
  }

  /** Ghost text that does not come is no news for a pop-up; the log and the status bar have it. */
  #fail(error: unknown): void {
    if (!(error instanceof Error) || isCancellation(error) || error.message === this.#lastError) return;
    this.#lastError = error.message;
    this.#options.onError(error);
  }

  #restOfOffer(document: TextDocument, position: Position, context: InlineCompletionContext): string | undefined {
    // With the suggestion list open, the text must extend the selected entry: the engine decides.
    if (this.#offer === undefined || context.selectedCompletionInfo !== undefined) return undefined;
    if (this.#offer.uri !== document.uri.toString()) return undefined;
    const { before, after } = around(document, position);
    return restOfOffer(this.#offer, document.uri.toString(), before, after);
  }

  /** Who accepted an offer, and perhaps began the line below, waits for the next one; nothing is being typed. */
  #awaitsNext(document: TextDocument, position: Position): boolean {
    const uri = document.uri.toString();
    const { before, after } = around(document, position);
    const offer = this.#offer;
    if (offer?.uri === uri && before === offer.before + offer.text && after === offer.after) {
      this.#accepted = { uri, before };
      return true;
    }
    const last = this.#accepted;
    return last?.uri === uri && before.startsWith(last.before) && newLine.test(before.slice(last.before.length));
  }

  #remember(document: TextDocument, position: Position, completions: Completions | null): void {
    const first = firstOf(completions);
    const text = insertedAtCursor(first, document, position);
    this.#onAccept = first?.command;
    const { before, after } = around(document, position);
    this.#offer = text === undefined || text === "" ? undefined : { uri: document.uri.toString(), before, after, text };
  }
}

/** A key, and what the editor indents by itself. */
const newLine = /^[ \t]*\r?\n[ \t]*$/;

function firstOf(completions: Completions | null): InlineCompletionItem | undefined {
  const items = completions === null || Array.isArray(completions) ? completions : completions.items;
  return items?.[0];
}

/** Of an offer that follows the typing. */
const costsNothing = { cached: true, tokens: 0, millis: { queue: 0, prefill: 0, decode: 0 } } as const;

/** The engine sends them as the argument of the command that accepting runs. */
function statsOf(onAccept: Command | undefined): CompletionStats | undefined {
  const argument: unknown = onAccept?.arguments?.[0];
  return isStats(argument) ? argument : undefined;
}

function isStats(value: unknown): value is CompletionStats {
  return typeof value === "object" && value !== null && "promptTokens" in value && "millis" in value;
}

/** What an item adds at the cursor; undefined when it replaces text after it, or is a snippet. */
function insertedAtCursor(
  item: InlineCompletionItem | undefined,
  document: TextDocument,
  position: Position,
): string | undefined {
  if (item === undefined || typeof item.insertText !== "string") return undefined;
  if (item.range === undefined) return item.insertText;
  const kept = document.getText(new Range(item.range.start, position));
  if (!item.range.end.isEqual(position) || !item.insertText.startsWith(kept)) return undefined;
  return item.insertText.slice(kept.length);
}

function around(document: TextDocument, position: Position): { before: string; after: string } {
  const text = document.getText();
  const offset = document.offsetAt(position);
  return { before: text.slice(0, offset), after: text.slice(offset) };
}
