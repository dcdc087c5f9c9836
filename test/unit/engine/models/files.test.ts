import { expect, it } from "vitest";
import { requireRoom } from "../../../../engine/models/files";
import { tempFolders } from "../../../support/tempFolder";

const temp = tempFolders();

it("says how much room a model needs and how much there is", async () => {
  const folder = await temp();
  await expect(requireRoom(folder, 1e18)).rejects.toMatchObject({
    kind: "noSpace",
    message: expect.stringMatching(
      /^The model needs 1000000000000 MB on disk and \d+ MB are free in .*: free some space and try again\.$/,
    ),
  });
  await expect(requireRoom(folder, 1)).resolves.toBeUndefined();
});
