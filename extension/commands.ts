import { commands, type Disposable } from "vscode";
import { Scope } from "./util/disposables";

/** Command id → what it does with what its menu hands in. The same ids as in package.json; a test compares. */
export type CommandTable = Readonly<Record<`nosa.${string}`, (what: unknown) => unknown>>;

/** Registers every command; what one throws is told to the user who called it. */
export function registerCommands(table: CommandTable, onError: (error: unknown) => void): Disposable {
  const scope = new Scope();
  for (const [id, run] of Object.entries(table)) {
    scope.add(
      commands.registerCommand(id, async (what: unknown) => {
        try {
          await run(what);
        } catch (error) {
          onError(error);
        }
      }),
    );
  }
  return scope;
}
