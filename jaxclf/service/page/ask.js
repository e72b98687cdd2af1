// Questions to the service: JSON in, JSON out. While it is busy, waits as long as it says and asks
// again.

const MOMENT = 2; // seconds, where a busy service does not say how long

// True of what the service takes for no text: Python counts five more characters as space.
export const blank = (text) => /^[\s\x1c-\x1f\x85]*$/.test(text);

// What the service, or its silence, gave as a reason. status: of HTTP, 0 without an answer.
export class Refused extends Error {
  constructor(status, sentence) {
    super(sentence);
    this.status = status;
  }
}

// The answer to a POST. waiting: is told in a sentence that the service is busy, and "" when it is
// asked again. Throws Refused, or an AbortError where `signal` says to stop.
export async function ask(path, question, signal, waiting) {
  const body = JSON.stringify(question);
  const headers = { "Content-Type": "application/json" };
  for (;;) {
    const answer = await get(path, { method: "POST", headers, body, signal });
    if (answer.status !== 429) return found(answer);
    const seconds = Math.ceil(Number(answer.headers.get("Retry-After"))) || MOMENT;
    const { message } = await reason(answer);
    waiting(`${message} Asking again in ${seconds} s.`);
    await pause(1000 * seconds, signal);
    waiting("");
  }
}

// {"labels": [...], "model": "name"} once the service is ready; throws Refused before.
export async function ready() {
  return found(await get("ready", {}));
}

export function pause(milliseconds, signal) {
  signal?.throwIfAborted();
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}

async function get(path, settings) {
  try {
    return await fetch(path, { cache: "no-store", ...settings });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The service does not answer.");
  }
}

async function found(answer) {
  if (!answer.ok) throw await reason(answer);
  try {
    return await answer.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(answer.status, "The service’s response cannot be read.");
  }
}

async function reason(answer) {
  let sentence = "";
  try {
    sentence = (await answer.json()).error;
  } catch (error) {
    // A proxy's error page is no JSON.
    if (error.name === "AbortError") throw error;
  }
  sentence ||= `The service answers with status ${answer.status}`;
  return new Refused(answer.status, /[.!?…]$/.test(sentence) ? sentence : `${sentence}.`);
}
