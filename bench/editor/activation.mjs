// How long the editor takes to load the extension and to activate it, in windows that open one after the other.
import { gone, until } from "./harness.mjs";

/** Milliseconds for each of `count` windows: the editor's own ("Show Running Extensions"), and of it what building our parts took, as our log says. */
export async function activations(editor, count) {
  const found = [];
  for (let window = 0; window < count; window += 1) {
    if (window > 0) await editor.page.reload();
    await editor.statusBarItem(/Nosa: /).waitFor({ timeout: 90_000 });
    const shownMs = await shownTime(editor);
    found.push({ shownMs, activateMs: activateTime(editor) });
  }
  return found;
}

async function shownTime(editor) {
  await editor.command("Developer: Show Running Extensions");
  const row = editor.page.locator(".runtime-extensions-editor .monaco-list-row", { hasText: "Nosa" }).first();
  const text = await row.locator(".activation-time").innerText();
  // It lies over the window, and takes the keys.
  const close = editor.page.getByRole("button", { name: /^Close/ }).last();
  await until(gone(row), () => close.click());
  const [, ms] = /([\d.]+)\s*ms/.exec(text) ?? [];
  if (ms === undefined) throw new Error(`The editor shows no time of activation: ${text}`);
  return Number(ms);
}

/** Of the newest window. */
function activateTime(editor) {
  const times = editor.log().flatMap((line) => /is active after (\d+) ms/.exec(line)?.[1] ?? []);
  if (times.length === 0) throw new Error("The log says nothing of an activation.");
  return Number(times.at(-1));
}
