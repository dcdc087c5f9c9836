/** The abilities that have a name of their own. The same in the editor's chat and in our view; package.json lists them too. */
export const slashNames = ["explain", "where", "impact", "tests", "fix", "review", "docs"] as const;

export type SlashName = (typeof slashNames)[number];

export interface Asked {
  readonly command: SlashName | undefined;
  /** What stands beside the command. */
  readonly text: string;
}

/** "/where are fees decided?" → where, "are fees decided?". A slash before any other word is text. */
export function parseAsked(input: string): Asked {
  const found = /^\/(\w+)(?=\s|$)/.exec(input.trim());
  const command = slashNamed(found?.[1]);
  if (command === undefined) return { command, text: input.trim() };
  return {
    command,
    text: input
      .trim()
      .slice(command.length + 1)
      .trim(),
  };
}

export function slashNamed(name: string | undefined): SlashName | undefined {
  return slashNames.find((known) => known === name);
}
