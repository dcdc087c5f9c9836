import { QuickPickItemKind, ThemeIcon, l10n, window, type QuickInputButton, type QuickPickItem } from "vscode";
import { titleOf, type ChatHistory, type KeptChat } from "./history";

interface ChatItem extends QuickPickItem {
  readonly chat: KeptChat | "new" | null;
}

/** Lists the conversations that are kept; each can be deleted there. Undefined when the user turned away. */
export function chooseChat(history: ChatHistory, currentId: number): Promise<KeptChat | "new" | undefined> {
  const remove: QuickInputButton = { iconPath: new ThemeIcon("trash"), tooltip: l10n.t("Delete this chat") };
  const pick = window.createQuickPick<ChatItem>();
  const list = (): readonly ChatItem[] => chatItems(history.chats, currentId, [remove]);
  pick.placeholder = l10n.t("Which chat?");
  pick.items = list();
  return new Promise((resolve) => {
    pick.onDidTriggerItemButton(({ item }) => {
      if (item.chat === null || item.chat === "new") return;
      void history.remove(item.chat.id).then(() => (pick.items = list()));
    });
    pick.onDidAccept(() => {
      resolve(pick.selectedItems[0]?.chat ?? undefined);
      pick.hide();
    });
    pick.onDidHide(() => {
      resolve(undefined);
      pick.dispose();
    });
    pick.show();
  });
}

function chatItems(
  chats: readonly KeptChat[],
  currentId: number,
  buttons: readonly QuickInputButton[],
): readonly ChatItem[] {
  const fresh: ChatItem = { label: `$(add) ${l10n.t("New chat")}`, chat: "new" };
  const kept = chats.map((chat): ChatItem => {
    const at = new Date(chat.atMs).toLocaleString();
    const label = `$(${chat.id === currentId ? "check" : "comment"}) ${titleOf(chat)}`;
    return { label, description: at, chat, buttons: [...buttons] };
  });
  return kept.length === 0 ? [fresh] : [fresh, { label: "", kind: QuickPickItemKind.Separator, chat: null }, ...kept];
}
