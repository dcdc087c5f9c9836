import type { ToView, ViewAttachment, ViewBanner, ViewTurn } from "../../extension/chatView/messages";

/** Everything the page shows. Values never change; each message makes a new one. */
export interface PageState {
  readonly turns: readonly ViewTurn[];
  readonly banner: ViewBanner;
  /** Go along with the next question. */
  readonly attachments: readonly ViewAttachment[];
  readonly busy: boolean;
  /** What happens before the first word of the answer that is being written; "" once it has begun. */
  readonly stage: string;
}

export const emptyPage: PageState = {
  turns: [],
  banner: { text: "", action: null },
  attachments: [],
  busy: false,
  stage: "",
};

/** What a message of the extension makes of the page. Pure. */
export function received(state: PageState, message: ToView): PageState {
  switch (message.kind) {
    case "state":
      return {
        turns: message.turns,
        banner: message.banner,
        attachments: message.attachments,
        busy: message.busy,
        stage: "",
      };
    case "banner":
      return { ...state, banner: message.banner };
    case "attachments":
      return { ...state, attachments: message.attachments };
    case "draft":
      // Of the box it is written in, not of the page.
      return state;
    case "stage":
      return state.turns.at(-1)?.id === message.turnId ? { ...state, stage: message.text } : state;
    case "delta":
      return { ...state, stage: "", turns: state.turns.map((turn) => extended(turn, message)) };
    case "turn":
      return { ...state, stage: "", busy: message.busy, turns: withTurn(state.turns, message.turn) };
  }
}

function extended(turn: ViewTurn, delta: Extract<ToView, { kind: "delta" }>): ViewTurn {
  return turn.id === delta.turnId ? { ...turn, markdown: turn.markdown + delta.text } : turn;
}

function withTurn(turns: readonly ViewTurn[], turn: ViewTurn): readonly ViewTurn[] {
  const isKnown = turns.some((known) => known.id === turn.id);
  return isKnown ? turns.map((known) => (known.id === turn.id ? turn : known)) : [...turns, turn];
}

/** The last question, to ask again or to change; "" before the first. */
export function lastQuestion(state: PageState): string {
  return state.turns.findLast((turn) => turn.role === "user")?.markdown ?? "";
}
