import { l10n } from "vscode";
import type { EngineStatus } from "../engine/protocol";
import { bytesText, countText, percentOf } from "./util/format";

/** One bar: how much of a budget is used. */
export interface Gauge {
  readonly id: "tokens" | "device" | "memory" | "disk";
  readonly label: string;
  /** "120 MB of 2 GB". */
  readonly text: string;
  /** 0 to 100; 0 where there is no budget. */
  readonly percent: number;
}

/** What the repositories of this window take, against what they may: tokens, device, memory, disk. Pure. */
export function gauges(status: EngineStatus, roots: readonly string[], contextTokensMax: number): readonly Gauge[] {
  const { memory } = status;
  const tokens = Math.max(0, ...status.contexts.filter(({ root }) => roots.includes(root)).map((each) => each.tokens));
  const device = deviceGauge(status);
  return [
    {
      id: "tokens",
      label: l10n.t("Tokens read"),
      text: l10n.t("{0} of {1}", countText(tokens), countText(contextTokensMax)),
      percent: percentOf(tokens, contextTokensMax),
    },
    ...(device === undefined ? [] : [device]),
    bytesGauge("memory", l10n.t("In memory"), memory.bytes, memory.bytesMax),
    bytesGauge("disk", l10n.t("On disk"), memory.diskBytes, memory.diskBytesMax),
  ];
}

/** Memory of an accelerator, where the engine speaks of one. */
function deviceGauge({ memory }: EngineStatus): Gauge | undefined {
  if (memory.deviceBytes === undefined) return undefined;
  return bytesGauge("device", l10n.t("On the device"), memory.deviceBytes, memory.deviceBytesMax ?? 0);
}

function bytesGauge(id: Gauge["id"], label: string, bytes: number, bytesMax: number): Gauge {
  const text = bytesMax > 0 ? l10n.t("{0} of {1}", bytesText(bytes), bytesText(bytesMax)) : bytesText(bytes);
  return { id, label, text, percent: percentOf(bytes, bytesMax) };
}
