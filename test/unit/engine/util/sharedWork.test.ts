import { describe, expect, it } from "vitest";
import { SharedWork } from "../../../../engine/util/sharedWork";

const never = new AbortController().signal;

/** Work that ends when told to, or when it is stopped. */
function work() {
  let finish = (_: string): void => undefined;
  let fail = (_: Error): void => undefined;
  const shared = new SharedWork<string, number>(
    (signal) =>
      new Promise((resolve, reject) => {
        finish = resolve;
        fail = reject;
        signal.addEventListener("abort", () => resolve("stopped"), { once: true });
      }),
  );
  return { shared, finish: (value: string) => finish(value), fail: (error: Error) => fail(error) };
}

describe("SharedWork", () => {
  it("gives everybody the result and the progress", async () => {
    const { shared, finish } = work();
    const heard: number[] = [];
    const listen = (progress: number): void => void heard.push(progress);
    const both = [shared.join(never, listen), shared.join(never, listen)];
    await Promise.resolve();
    shared.tell(7);
    finish("done");
    expect(await Promise.all(both)).toEqual(["done", "done"]);
    expect(heard).toEqual([7, 7]);
  });

  it("goes on while one is left, and stops when the last leaves", async () => {
    const { shared } = work();
    const [one, two] = [new AbortController(), new AbortController()];
    const both = [shared.join(one.signal, () => undefined), shared.join(two.signal, () => undefined)];
    await Promise.resolve();
    one.abort();
    expect(shared.stopped).toBe(false);
    two.abort();
    expect(shared.stopped).toBe(true);
    expect(await Promise.all(both)).toEqual(["stopped", "stopped"]);
  });

  it("is not kept alive by one who had left before he came", async () => {
    const { shared } = work();
    const gone = new AbortController();
    gone.abort();
    void shared.join(gone.signal, () => undefined);
    expect(shared.stopped).toBe(true);
  });

  it("settles without rejecting when the work fails", async () => {
    const { shared, fail } = work();
    const joined = expect(shared.join(never, () => undefined)).rejects.toThrow("broken");
    await Promise.resolve();
    fail(new Error("broken"));
    await joined;
    await shared.settled;
  });
});
