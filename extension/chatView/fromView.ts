import type { FromView } from "./messages";

/** Longest text a message of the view may carry. */
const textMax = 200_000;

/** What came out of the webview → a message, or undefined when it is none. The only place that looks at raw messages. */
export function parseFromView(value: unknown): FromView | undefined {
  if (typeof value !== "object" || value === null || !("kind" in value)) return undefined;
  const text = stringIn(value, "text");
  switch (value.kind) {
    case "ready":
    case "stop":
    case "clear":
      return { kind: value.kind };
    case "ask":
    case "copy":
    case "insert":
      return text === undefined ? undefined : { kind: value.kind, text };
    case "open": {
      const referenceId = stringIn(value, "referenceId");
      return referenceId === undefined ? undefined : { kind: "open", referenceId };
    }
    case "attach":
      return { kind: "attach" };
    case "detach": {
      const attachmentId = stringIn(value, "attachmentId");
      return attachmentId === undefined ? undefined : { kind: "detach", attachmentId };
    }
    case "fork": {
      const turnId = stringIn(value, "turnId");
      return turnId === undefined ? undefined : { kind: "fork", turnId };
    }
    case "apply": {
      const turnId = stringIn(value, "turnId");
      return turnId === undefined || text === undefined ? undefined : { kind: "apply", turnId, text };
    }
    case "action": {
      const command = stringIn(value, "command");
      return command === undefined ? undefined : { kind: "action", command };
    }
    default:
      return undefined;
  }
}

function stringIn(value: object, name: string): string | undefined {
  const found: unknown = Object.entries(value).find(([key]) => key === name)?.[1];
  return typeof found === "string" && found.length <= textMax ? found : undefined;
}
