import { describe, expect, it } from "vitest";
import { Cancelled, EngineError } from "../../../../engine/errors";
import { silentLog } from "../../../../engine/log";
import type { Session } from "../../../../engine/sessions/session";
import { Sessions } from "../../../../engine/sessions/sessions";

interface FakeSession {
  readonly path: string;
  disposed: boolean;
}

function setUp(options: { readonly openMs?: number; readonly failure?: Error } = {}) {
  const opened: FakeSession[] = [];
  let failure = options.failure;
  const sessions = new Sessions({
    registry: {
      resolve: async (wanted) => ({ id: wanted, name: wanted, path: `/${wanted}`, segmentTokensMax: 64, sha256: "" }),
    },
    open: async ({ path, ...rest }) => {
      await new Promise((resolve) => setTimeout(resolve, options.openMs ?? 5));
      if (failure !== undefined) throw failure;
      const session: FakeSession = { path, disposed: false };
      opened.push(session);
      const resolved = { path, ...rest };
      const dispose = async (): Promise<void> => void (session.disposed = true);
      return { resolved, info: { device: "Test" }, dispose } as unknown as Session;
    },
    log: silentLog,
    onChange: () => undefined,
  });
  const heal = (): void => void (failure = undefined);
  return { sessions, opened, heal };
}

const never = new AbortController().signal;
const choose = (model: string) => ({ model, threads: 0, memoryGigabytes: 0, diskGigabytes: 0 });
const soon = (ms = 20): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

describe("Sessions", () => {
  it("loads a model once for all who want it at the same time, and keeps it", async () => {
    const { sessions, opened } = setUp();
    const paths = await Promise.all(
      [1, 2, 3].map(() => sessions.use(choose("a"), never, async (session) => session.resolved.path)),
    );
    expect(paths).toEqual(["/a", "/a", "/a"]);
    await sessions.use(choose("a"), never, async () => undefined);
    expect(opened).toHaveLength(1);
    expect(sessions.loaded).toHaveLength(1);
  });

  it("lets go of the model that nobody uses before it loads another", async () => {
    const { sessions, opened } = setUp();
    await sessions.use(choose("a"), never, async () => undefined);
    await sessions.use(choose("b"), never, async () => expect(opened[0]?.disposed).toBe(true));
    expect(opened.map(({ disposed }) => disposed)).toEqual([true, false]);
  });

  it("never takes a model away from work that uses it", async () => {
    const { sessions, opened } = setUp();
    let finish = (): void => undefined;
    const working = sessions.use(choose("a"), never, () => new Promise<void>((resolve) => (finish = resolve)));
    await soon();
    await sessions.use(choose("b"), never, async () => undefined);
    expect(opened.find(({ path }) => path === "/a")?.disposed).toBe(false);
    finish();
    await working;
    await soon();
    expect(opened.filter(({ disposed }) => !disposed)).toHaveLength(1);
  });

  it("treats another number of threads as another model", async () => {
    const { sessions, opened } = setUp();
    await sessions.use({ ...choose("a"), threads: 1 }, never, async () => undefined);
    await sessions.use({ ...choose("a"), threads: 2 }, never, async () => undefined);
    expect(opened).toHaveLength(2);
  });

  it("remembers why a model could not be loaded, and tries again the next time", async () => {
    const { sessions, heal } = setUp({
      failure: Object.assign(new Error("The file is cut off."), { code: "corrupt" }),
    });
    await expect(sessions.use(choose("a"), never, async () => undefined)).rejects.toMatchObject({
      kind: "modelBroken",
    });
    expect(sessions.problemOf("/a")).toBe("The file is cut off.");
    expect(sessions.problemOf("/b")).toBe("");
    heal();
    await sessions.use(choose("a"), never, async () => undefined);
    expect(sessions.problemOf("/a")).toBe("");
  });

  it("lets a caller leave while a model is loading, which goes on for the next one", async () => {
    const { sessions, opened } = setUp({ openMs: 40 });
    const stop = new AbortController();
    const leaving = sessions.use(choose("a"), stop.signal, async () => "never");
    setTimeout(() => stop.abort(), 5);
    await expect(leaving).rejects.toBeInstanceOf(Cancelled);
    expect(await sessions.use(choose("a"), never, async () => "here")).toBe("here");
    expect(opened).toHaveLength(1);
  });

  it("passes the failure of the work itself on, and keeps the model", async () => {
    const { sessions } = setUp();
    const failing = sessions.use(choose("a"), never, async () => {
      throw new EngineError("notIndexed", "Index first.");
    });
    await expect(failing).rejects.toMatchObject({ kind: "notIndexed" });
    expect(sessions.problemOf("/a")).toBe("");
    expect(sessions.loaded).toHaveLength(1);
  });

  it("when disposed closes what is loaded and loads nothing more", async () => {
    const { sessions, opened } = setUp();
    await sessions.use(choose("a"), never, async () => undefined);
    await sessions.dispose();
    expect(opened[0]?.disposed).toBe(true);
    await expect(sessions.use(choose("a"), never, async () => undefined)).rejects.toBeInstanceOf(Cancelled);
  });
});
