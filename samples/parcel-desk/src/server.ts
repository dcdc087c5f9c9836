/** Starts the desk: `node dist/src/server.js`. */

import { createApi } from "./api.js";
import { configFrom } from "./config.js";
import { Desk } from "./desk.js";
import { type Message, Outbox } from "./notifications.js";

const sweepHour = 3;

const config = configFrom(process.env);
const outbox = new Outbox(printMessage, (delayMs, action) => void setTimeout(action, delayMs).unref());
const desk = new Desk({ config, outbox, nowMs: Date.now, random: Math.random });
const server = createApi(desk).listen(config.port, () => console.log(`The desk listens on port ${config.port}`));
scheduleSweep();

process.once("SIGTERM", () => {
  server.close(() => {
    desk.close();
    process.exit(0);
  });
});

/** Until a real gateway is configured, messages appear in the log. */
async function printMessage(message: Message): Promise<void> {
  console.log(`${message.to.channel} to ${message.to.contact}: ${message.text}`);
}

/** Sweeps every night at three, when nobody is at the counter. */
function scheduleSweep(): void {
  const next = new Date();
  next.setHours(sweepHour, 0, 0, 0);
  if (next.getTime() <= Date.now()) next.setDate(next.getDate() + 1);
  setTimeout(() => {
    console.log("Sweep:", desk.sweep());
    scheduleSweep();
  }, next.getTime() - Date.now());
}
