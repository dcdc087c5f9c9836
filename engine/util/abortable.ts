import { Cancelled } from "../errors";

/** Stops waiting, with Cancelled, when `signal` is aborted. What was waited for goes on, for whoever wants it next. */
export async function abortable<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  if (signal.aborted) {
    promise.catch(() => undefined);
    throw new Cancelled();
  }
  return new Promise<T>((resolve, reject) => {
    const onAbort = (): void => reject(new Cancelled());
    signal.addEventListener("abort", onAbort, { once: true });
    void promise.then(resolve, reject).then(() => signal.removeEventListener("abort", onAbort));
  });
}
