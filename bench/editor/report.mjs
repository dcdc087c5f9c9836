// Samples of typing → figures. Times on the screen run from the moment a key went down to the frame that drew the ghost text; stages are the engine's own.
import { mean, median, percentile } from "../lib/figures.mjs";
import { isOther } from "./typing.mjs";

/** Of an edit that got no answer at all, in milliseconds: it counts as slow, not as nothing. */
const unansweredMs = 6_000;

/** An answer that the engine gave faster was there already: no token is read and written in that time. */
const thereAlreadyMs = 12;

/**
 * Edits for which something was drawn, by how it came: there already (it followed the typing, or was kept), or the person waited for the model, be it for
 * an offer that had been begun before. `ms` is the wait on the screen.
 */
export function sorted(samples) {
  const timed = samples
    .filter(({ shownAt, gaveUp }) => shownAt !== undefined || gaveUp)
    .map((sample) => ({ ...sample, ms: sample.gaveUp ? unansweredMs : sample.shownAt - sample.keyAt }));
  const isHit = ({ gaveUp, answer }) =>
    !gaveUp && (answer === undefined || (answer.stats?.cached === true && answer.engineMs < thereAlreadyMs));
  return {
    all: timed,
    hits: timed.filter(isHit),
    misses: timed.filter((sample) => !isHit(sample)),
    unanswered: timed.filter(({ gaveUp }) => gaveUp).length,
    nothing: samples.length - timed.length,
  };
}

/** `tokensOf(text)` counts the tokens of an offer. */
export async function reportTyping(figures, samples, tokensOf) {
  const { all, hits, misses, unanswered, nothing } = sorted(samples);
  const lower = { better: "lower" };
  const add = (name, group, share, goal) =>
    group.length > 0 && figures.add(name, percentile(times(group), share), "ms", { goal: goal ?? null, ...lower });
  add(`ghost text on the screen, waited for the model (${misses.length}), p50`, misses, 0.5, 1_000);
  add(`ghost text on the screen, waited for the model (${misses.length}), p95`, misses, 0.95, 1_800);
  add(`ghost text on the screen, there already (${hits.length}), p50`, hits, 0.5);
  add(`ghost text on the screen, there already (${hits.length}), p95`, hits, 0.95);
  add(`ghost text on the screen, all (${all.length}), p50`, all, 0.5, 500);
  add(`ghost text on the screen, all (${all.length}), p95`, all, 0.95);
  const share = (count) => (100 * count) / samples.length;
  figures.add("edits for which something was offered", share(all.length - unanswered), "%");
  figures.add("edits that were answered with nothing", share(nothing), "%");
  figures.add("edits that were not answered within 6 s", share(unanswered), "%");
  figures.add("offers taken", samples.filter(({ accepted }) => accepted).length, "of them");
  const others = samples.filter(({ wrote }) => wrote !== undefined && isOther(wrote)).length;
  figures.add("offers taken that wrote something else than was drawn", others, "of them", { goal: 0, ...lower });
  const lengths = [];
  for (const { text } of misses) if (text !== undefined) lengths.push(await tokensOf(text));
  if (lengths.length > 0) figures.add("length of an offer as drawn, median", median(lengths), "tokens", { goal: 6 });
  reportStages(figures, misses);
}

/** Where the time of offers went that were written for the request, if need be from the pause before it on: of the middle one, and of the slowest twentieth. */
function reportStages(figures, misses) {
  const staged = misses
    .filter(({ answer, shownAt }) => answer?.stats?.cached === false && shownAt !== undefined)
    .map(stagesOf);
  if (staged.length === 0) return;
  const slow = [...staged].sort((a, b) => b.total - a.total).slice(0, Math.ceil(staged.length / 20));
  for (const name of [
    "the editor's pause",
    "our pause",
    "queue",
    "prefill",
    "decode",
    "rest of the engine",
    "drawing",
  ]) {
    figures.add(`stage: ${name}, median`, median(staged.map((each) => each[name])), "ms");
    figures.add(`stage: ${name}, mean of the slowest 5 %`, mean(slow.map((each) => each[name])), "ms");
  }
  const written = misses.filter(({ answer }) => answer?.stats?.cached === false);
  const stat = (name) => written.flatMap(({ answer }) => answer.stats[name] ?? []);
  for (const [name, what] of [
    ["contextTokens", "tokens of the repository that could be attended to, median"],
    ["attendedTokens", "tokens of it that were attended to, median"],
    ["promptTokens", "tokens of the prompt, median"],
    ["promptTokensRead", "tokens of the prompt that had to be read, median"],
    ["tokens", "tokens written, median"],
  ]) {
    if (stat(name).length > 0) figures.add(what, median(stat(name)), "tokens");
  }
}

function stagesOf({ keyAt, shownAt, answer }) {
  const { queue, prefill, decode } = answer.stats.millis;
  return {
    total: shownAt - keyAt,
    "the editor's pause": answer.at - answer.totalMs - keyAt,
    "our pause": answer.totalMs - answer.engineMs,
    queue,
    prefill,
    decode,
    "rest of the engine": answer.engineMs - queue - prefill - decode,
    drawing: shownAt - answer.at,
  };
}

/** The same edits typed alone and while a repository was being read. */
export function reportIndexing(figures, alone, indexing) {
  const before = sorted(alone.slice(0, indexing.length));
  const during = sorted(indexing);
  for (const kind of ["misses", "all"]) {
    const [a, b] = [before[kind], during[kind]];
    if (a.length === 0 || b.length === 0) continue;
    const what = kind === "misses" ? "waited for the model" : "all";
    const [calm, busy] = [percentile(times(a), 0.95), percentile(times(b), 0.95)];
    figures.add(`while indexing, ${what} (${b.length}), p50`, percentile(times(b), 0.5), "ms");
    figures.add(`while indexing, ${what} (${b.length}), p95`, busy, "ms");
    figures.add(`while indexing over alone, ${what}, p95 of the same edits`, busy / calm, "x", {
      goal: 2,
      better: "lower",
    });
  }
}

/**
 * What the extension host's main thread did meanwhile; see probe/lateness.mjs. It blocks others while it computes: that is judged. What becomes due waits
 * longer where all cores are taken, by the engine among others: that is said beside it.
 */
export function reportHost(figures, host) {
  const goal = { goal: 10, better: "lower" };
  figures.add("extension host: Node's own event loop delay, p99", host.histogramP99, "ms", goal);
  if (host.busyP99 !== undefined) {
    figures.add("extension host: wait at any moment because it computes, p99", host.busyP99, "ms", goal);
    figures.add("extension host: longest stretch of computing", host.busyLongest, "ms");
    figures.add("extension host: share of a core that its main thread took", 100 * host.cpuShare, "%");
  }
  figures.add("extension host: the same with the wait for a core, p99", host.waitP99, "ms");
  figures.add("extension host: the same, p99.9", host.waitP999, "ms");
  figures.add("extension host: the same, longest", host.longest, "ms");
}

function times(samples) {
  return samples.map(({ ms }) => ms);
}
