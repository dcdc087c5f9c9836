// What a person sees, noted in the page itself: when a key went down and when ghost text was drawn. Times are of the epoch, in milliseconds.

/** Installs the recorder in the editor's page. */
export async function watchScreen(page) {
  await page.evaluate(() => {
    const ghosts =
      ".editor-instance .ghost-text-decoration, .editor-instance .ghost-text-decoration-preview, .editor-instance .ghost-text";
    const shown = () => {
      const all = [...document.querySelectorAll(ghosts)];
      // Lines of an offer beyond the first lie in an element of their own, which may hold others.
      const outer = all.filter((each) => !all.some((other) => other !== each && other.contains(each)));
      return outer
        .map((each) => {
          const lines = [...each.querySelectorAll(".view-line")];
          return lines.length === 0 ? each.textContent : `\n${lines.map((line) => line.textContent).join("\n")}`;
        })
        .join("")
        .replaceAll("\u00a0", " ");
    };
    const state = { text: "", textAtKey: "", keyAt: 0, shownAt: 0, waiting: undefined };
    const look = () => {
      const text = shown();
      if (text === state.text) return;
      state.text = text;
      if (text === "") return;
      state.shownAt = performance.timeOrigin + performance.now();
      state.waiting?.();
    };
    let isLooking = false;
    new MutationObserver(() => {
      if (isLooking) return;
      isLooking = true;
      // The frame in which it is drawn.
      requestAnimationFrame(() => {
        isLooking = false;
        look();
      });
    }).observe(document.body, { subtree: true, childList: true, characterData: true });
    document.addEventListener(
      "keydown",
      (event) => {
        if (event.key === "Shift" || event.key === "Control") return;
        state.keyAt = performance.timeOrigin + event.timeStamp;
        state.textAtKey = shown();
      },
      { capture: true },
    );
    globalThis.nosaScreen = state;
  });
}

/** When the last key went down. */
export function keyAt(page) {
  return page.evaluate(() => globalThis.nosaScreen.keyAt);
}

/** What was drawn when the last key went down. */
export function drawnAtKey(page) {
  return page.evaluate(() => globalThis.nosaScreen.textAtKey);
}

/** `{keyAt, shownAt, text}` of ghost text drawn after the last key, waiting for it; undefined after `timeoutMs` or `stopWaiting`. */
export function shownAfterKey(page, timeoutMs) {
  return page.evaluate(
    (ms) =>
      new Promise((resolve) => {
        const state = globalThis.nosaScreen;
        const end = () => {
          clearTimeout(timer);
          state.waiting = undefined;
          const { keyAt, shownAt, text } = state;
          resolve(shownAt >= keyAt && text !== "" ? { keyAt, shownAt, text } : undefined);
        };
        const timer = setTimeout(end, ms);
        if (state.shownAt >= state.keyAt && state.text !== "") end();
        else state.waiting = end;
      }),
    timeoutMs,
  );
}

/** Ends a wait of shownAfterKey. */
export function stopWaiting(page) {
  return page.evaluate(() => globalThis.nosaScreen.waiting?.());
}
