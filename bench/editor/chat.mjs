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
    await watch(box);
    await box.press("Enter");
    waits.push(await watched(box));
    onAnswer(waits.at(-1), question);
    const stop = view.getByRole("button", { name: "Stop (Escape)" });
    if (await stop.isVisible()) await stop.click({ timeout: 2_000 }).catch(() => undefined);
    await view.locator(".turn-assistant:not(.is-streaming)").last().waitFor();
  }
  return waits;
}

/** Watches the page from within, where both the key and the words are; installed before the key is pressed. */
function watch(box) {
  return box.evaluate((element, ms) => {
    globalThis.nosaFirstWords = new Promise((resolve) => {
      let askedAt;
      const end = (result) => {
        observer.disconnect();
        clearTimeout(timer);
        resolve(result);
      };
      const look = () => {
        const turn = [...document.querySelectorAll(".turn-assistant")].at(-1);
        if (askedAt === undefined || turn === undefined) return;
        if (turn.classList.contains("is-failed")) return end({ error: turn.textContent });
        const body = turn.querySelector(".turn-body");
        if (body.querySelector(".waiting") !== null || body.textContent.trim() === "") return;
        // The frame in which they are drawn.
        requestAnimationFrame(() => end({ ms: performance.now() - askedAt }));
      };
      const timer = setTimeout(() => end({ error: "No answer began." }), ms);
      const observer = new MutationObserver(look);
      element.addEventListener("keydown", (event) => (askedAt ??= event.timeStamp), { capture: true, once: true });
      observer.observe(document.body, { subtree: true, childList: true, characterData: true, attributes: true });
    });
  }, patienceMs);
}

async function watched(box) {
  const { ms, error } = await box.evaluate(() => globalThis.nosaFirstWords);
  if (error !== undefined) throw new Error(error);
  return ms;
}
