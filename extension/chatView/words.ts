import { env, l10n } from "vscode";
import { slashNames, type SlashName } from "../asking/slash";
import type { ViewWords } from "./messages";

export function slashDescription(name: SlashName): string {
  switch (name) {
    case "explain":
      return l10n.t("Explain code: what it does, why, and who uses it");
    case "where":
      return l10n.t("Find where something happens in the repository");
    case "impact":
      return l10n.t("List what depends on code, before you change it");
    case "tests":
      return l10n.t("Write tests in the style of the repository");
    case "fix":
      return l10n.t("Correct code, with the compiler's complaints in view");
    case "review":
      return l10n.t("Review what you changed and did not commit");
    case "docs":
      return l10n.t("Write a documentation comment");
  }
}

export function viewWords(): ViewWords {
  return {
    language: env.language,
    placeholder: l10n.t("Ask about the repository"),
    inputLabel: l10n.t("Ask Nosa about the repository. Enter asks, Shift+Enter makes a new line."),
    ask: l10n.t("Ask (Enter)"),
    stop: l10n.t("Stop (Escape)"),
    you: l10n.t("You"),
    yourQuestion: l10n.t("Your question"),
    answer: l10n.t("Answer"),
    answering: l10n.t("Nosa is answering"),
    thinking: l10n.t("Thinking"),
    copy: l10n.t("Copy"),
    copied: l10n.t("Copied"),
    insert: l10n.t("Insert at cursor"),
    apply: l10n.t("Preview the change"),
    askAgain: l10n.t("Ask differently, in a new chat with everything before it"),
    drewOn: l10n.t("Drew on"),
    drewOnLabel: l10n.t("Lines the answer drew on"),
    openReference: l10n.t("Open {0}, {1}% of the attention"),
    attach: l10n.t("Attach a file or folder (#)"),
    detach: l10n.t("Remove {0}"),
    attachments: l10n.t("Attached to the question"),
    commands: l10n.t("Commands"),
    welcomeTitle: l10n.t("Ask the whole repository"),
    welcomeText: l10n.t("Answers come from a model on this machine that reads every file. Nothing leaves it."),
    hint: l10n.t("Type / for commands, # to attach a file."),
    examples: [
      l10n.t("What does this repository do, and where does it start?"),
      l10n.t("Where are errors handled?"),
      l10n.t("How are the tests organised?"),
    ],
    slash: slashNames.map((name) => [name, slashDescription(name)] as const),
  };
}
