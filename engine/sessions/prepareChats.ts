/** What every chat begins with, made ready ahead of the first question. */

import { sharedPrefix } from "../contexts/tails";
import type { RepositoryContext } from "../contexts/repositoryContext";
import { Cancelled } from "../errors";
import type { Log } from "../log";
import type { Session } from "./session";

const tokensMax = 4_096;

/** Loads it from disk when it is there. */
export async function loadChatBase(session: Session, context: RepositoryContext): Promise<void> {
  await context.prepareChats("chat", await beginning(session), false);
}

/** Computes it when it is not there, behind all other work. That it could not be done costs time later, nothing else. */
export async function computeChatBase(session: Session, context: RepositoryContext, log: Log): Promise<void> {
  try {
    await context.prepareChats("indexing", await beginning(session), true);
  } catch (error) {
    if (!(error instanceof Cancelled)) log.info(`The beginning of chats is not ready: ${String(error)}`);
  }
}

/** Tokens that two different questions share. */
async function beginning(session: Session): Promise<Uint32Array> {
  const tail = async (content: string): Promise<Uint32Array> =>
    (await session.text.chat({ messages: [{ role: "user", content }], tokensMax })).tokens;
  const [one, two] = [await tail("a"), await tail("Z")];
  return one.slice(0, sharedPrefix(one, two));
}
