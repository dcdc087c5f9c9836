import { describe, expect, it } from "vitest";
import { contextKeys } from "../../../extension/contextKeys";
import { engineStatus } from "../../support/engineStatus";

const status = engineStatus();
const [read] = status.contexts;

describe("what the steps of the walkthrough wait for", () => {
  it.each([
    ["nothing before the engine speaks", null, { "nosa.hasModel": false, "nosa.hasRead": false }],
    ["no model", { ...status, model: null, contexts: [] }, { "nosa.hasModel": false, "nosa.hasRead": false }],
    ["a model, and nothing read", { ...status, contexts: [] }, { "nosa.hasModel": true, "nosa.hasRead": false }],
    ["both", status, { "nosa.hasModel": true, "nosa.hasRead": true }],
  ])("is %s", (_, now, keys) => {
    expect(contextKeys(now, [read?.root ?? ""])).toEqual(keys);
  });

  it("is of the folders that are open", () => {
    expect(contextKeys(status, ["/code/elsewhere"])).toMatchObject({ "nosa.hasRead": false });
  });
});
