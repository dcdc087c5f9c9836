// Types a trace into the real editor, key by key, and notes what came of each edit.
import { setTimeout as sleep } from "node:timers/promises";
import { ask } from "./probe.mjs";
import { drawnAtKey, keyAt, shownAfterKey, stopWaiting } from "./screen.mjs";
import { nextBurst } from "./trace.mjs";

/** An edit that nothing came of after so long counts as having taken so long. */
const patienceMs = 6_000;
/** Between the extension's answer and its being drawn. */
const drawnWithinMs = 500;
/** What a key changes in the page reaches the extension host a moment later. */
const toldWithinMs = 5_000;

/**
 * An edit is a burst of keys, or an offer taken, and the wait for what the editor shows then; so no answer is lost to the next key, and slow ones count.
 * Resolves with `[{keyAt, shownAt?, text?, answer?, accepted, gaveUp, wrote?}]` for `edits` edits: when its last key went down, what was drawn then and
 * when, the extension's last answer in that time, whether the edit was the taking of an offer, and what the taking of this one's offer wrote.
 */
export async function typeTrace({ editor, port, answers, stretches, edits, onEdit = () => undefined }) {
  const { page } = editor;
  const samples = [];
  for (const stretch of stretches) {
    if (samples.length >= edits) break;
    await ask(port, "cut", stretch);
    await page.locator(`.editor-instance .monaco-editor.focused[data-uri$="/${stretch.path}"]`).first().waitFor();
    let done = 0;
    let isTaken = false;
    while (done < stretch.text.length && samples.length < edits) {
      const { random, text } = stretch;
      const burst = nextBurst(text.slice(done), random);
      if (!isTaken) {
        await press(page, burst);
        done += burst.keys.length;
      }
      const sample = { accepted: isTaken, ...(await outcome(page, answers)) };
      samples.push(sample);
      onEdit(sample, samples.length);
      isTaken = burst.accepts && isWanted(sample.text, text.slice(done));
      if (isTaken) {
        const before = text.slice(0, done);
        const { text: stands } = await typedWhen((typed) => typed === before, port, stretch);
        if (stands !== before) {
          console.log(`  ${stretch.path}:${stretch.startLine + 1} was left: ${JSON.stringify({ before, stands })}`);
          break;
        }
        await page.keyboard.press("Tab");
        const { text: typed } = await typedWhen((now) => now.length > before.length, port, stretch);
        // What was drawn when the key went down: it may have changed since it was first seen.
        const drawn = await drawnAtKey(page);
        sample.wrote = { drawn, written: typed.slice(before.length) };
        if (isOther(sample.wrote))
          console.log(`  ${stretch.path}:${stretch.startLine + 1}: ${JSON.stringify(sample.wrote)}`);
        if (!text.startsWith(typed)) break;
        isTaken = typed.length > done;
        done = typed.length;
        if (done === text.length) break;
      }
      if (!isTaken) await sleep(burst.lookMs);
      if (burst.wanders && !isTaken) await lookAround(page);
    }
    await page.keyboard.press("Escape");
    await ask(port, "revert");
  }
  return samples;
}

/** What stands before the cursor, as soon as it is so: the extension host learns of a key a moment after the page. */
async function typedWhen(isSo, port, stretch) {
  const deadline = Date.now() + toldWithinMs;
  for (;;) {
    const typed = await ask(port, "typed", stretch);
    if (isSo(typed.text) || Date.now() > deadline) return typed;
    await sleep(10);
  }
}

async function press(page, { keys }) {
  for (const { key, gapMs, slip } of keys) {
    await sleep(gapMs);
    if (slip !== undefined) {
      await page.keyboard.press(slip);
      await sleep(200);
      await page.keyboard.press("Backspace");
      await sleep(gapMs);
    }
    await page.keyboard.press(key === "\n" ? "Enter" : key === " " ? "Space" : key);
  }
}

/** A few lines up, and back to the end of the line that is being written. */
async function lookAround(page) {
  for (const key of ["ArrowUp", "ArrowUp", "ArrowDown", "ArrowDown", "End"]) {
    await sleep(90);
    await page.keyboard.press(key);
  }
}

async function outcome(page, answers) {
  const key = await keyAt(page);
  const drawn = shownAfterKey(page, patienceMs);
  let isOver = false;
  void drawn.finally(() => (isOver = true)).catch(() => undefined);
  let gaveUp = true;
  while (!isOver) {
    await sleep(20);
    answers.refresh();
    const last = answers.between(key, Infinity);
    if (last === undefined || Date.now() - last.at < drawnWithinMs) continue;
    // Nothing is to be drawn, or it looks as what was there before.
    gaveUp = false;
    await stopWaiting(page);
    break;
  }
  const { shownAt, text } = (await drawn) ?? {};
  answers.refresh();
  const answer = answers.between(key, (shownAt ?? Date.now()) + 20);
  return { keyAt: key, shownAt, text, answer, gaveUp: gaveUp && shownAt === undefined };
}

/** Whether Tab wrote something else than was drawn. Of an offer that begins with blanks the editor writes as many as Tab gives, and no more. */
export function isOther({ drawn, written }) {
  return written !== drawn && (written.trim() !== "" || written === "" || !drawn.startsWith(written));
}

/** Whether an offer is, whole, what comes next. */
function isWanted(offer, rest) {
  return offer !== undefined && offer.trim() !== "" && rest.startsWith(offer);
}
