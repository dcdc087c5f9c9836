import { commands, type Disposable } from "vscode";
import { Scope } from "./util/disposables";

/** Command id → what it does with what its menu hands in. The same ids as in package.json; a test compares. */
export type CommandTable = Readonly<Record<`nosa.${string}`, (what: unknown) => unknown>>;

/** Handed in for a row of a tree that was drawn anew while its menu was open. */
export const goneRow = Symbol("gone row");

/** Registers every command; what one throws is told to the user who called it. */
export function registerCommands(table: CommandTable, onError: (error: unknown) => void): Disposable {
  const scope = new Scope();
  for (const [id, run] of Object.entries(table)) {
    scope.add(
      commands.registerCommand(id, async (...handed: readonly unknown[]) => {
        const [what] = handed;
        try {
          // The palette hands in nothing at all.
          await run(handed.length > 0 && what === undefined ? goneRow : what);
        } catch (error) {
          onError(error);
        }
      }),
    );
  }
  return scope;
}
