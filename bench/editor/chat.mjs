// How long the chat view takes to show the first words of an answer.

const placeholder = "Ask about the repository";
const patienceMs = 60_000;

/** Asks each question in a chat of its own: milliseconds from Enter to the first words drawn. Every answer is stopped soon after. */
export async function firstWords(editor, questions, onAnswer = () => undefined) {
  await editor.command("Nosa: Ask Nosa");
  const view = editor.webview();
  const box = view.getByPlaceholder(placeholder);
  await box.waitFor();
  const waits = [];
  for (const question of questions) {
    await editor.command("Nosa: New Chat");
    await view.locator(".turn").first().waitFor({ state: "detached" });
    await box.fill(question);
    const waited = watch(box);
    await box.press("Enter");
    waits.push(await waited);
    onAnswer(waits.at(-1), question);
    const stop = view.getByRole("button", { name: "Stop (Escape)" });
    if (await stop.isVisible()) await stop.click({ timeout: 2_000 }).catch(() => undefined);
    await view.locator(".turn-assistant:not(.is-streaming)").last().waitFor();
  }
  return waits;
}

/** Watches the page from within, where both the key and the words are. */
function watch(box) {
  return box.evaluate(
    (element, ms) =>
      new Promise((resolve, reject) => {
        let askedAt;
        element.addEventListener("keydown", (event) => (askedAt ??= event.timeStamp), { capture: true, once: true });
        const observer = new MutationObserver(() => {
          const turn = [...document.querySelectorAll(".turn-assistant")].at(-1);
          if (askedAt === undefined || turn === undefined) return;
          if (turn.classList.contains("is-failed")) end(() => reject(new Error(turn.textContent)));
          const body = turn.querySelector(".turn-body");
          if (body.querySelector(".waiting") !== null || body.textContent.trim() === "") return;
          end(() => requestAnimationFrame(() => resolve(performance.now() - askedAt)));
        });
        const timer = setTimeout(() => end(() => reject(new Error("No answer began."))), ms);
        const end = (then) => {
          observer.disconnect();
          clearTimeout(timer);
          then();
        };
        observer.observe(document.body, { subtree: true, childList: true, characterData: true, attributes: true });
      }),
    patienceMs,
  );
}
