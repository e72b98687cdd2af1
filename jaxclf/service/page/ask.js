// Requests to the service: JSON in, JSON out. While the service is busy, wait as long as it says and
// ask again.

const RETRY_SECONDS = 2; // where a busy service does not say how long

// Whether the service counts a text as empty. Python counts five more characters as space.
export const blank = (text) => /^[\s\x1c-\x1f\x85]*$/.test(text);

// A request without a result, with its reason. status: of HTTP, 0 without a response.
export class Refused extends Error {
  constructor(status, sentence) {
    super(sentence);
    this.status = status;
  }
}

// The JSON of the response to a POST. waiting: called with a sentence while the service is busy, and
// with "" when it is asked again. Throws Refused, or an AbortError after `signal`.
export async function ask(path, question, signal, waiting) {
  const body = JSON.stringify(question);
  const headers = { "Content-Type": "application/json" };
  for (;;) {
    const answer = await get(path, { method: "POST", headers, body, signal });
    if (answer.status !== 429) return parse(answer);
    const seconds = Math.ceil(Number(answer.headers.get("Retry-After"))) || RETRY_SECONDS;
    const { message } = await reason(answer);
    waiting(`${message} Asking again in ${seconds} s.`);
    await pause(1000 * seconds, signal);
    waiting("");
  }
}

// {"labels": [...], "model": "name"} once the service is ready; throws Refused before.
export async function ready() {
  return parse(await get("ready", {}));
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

async function parse(answer) {
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
    // A proxy's error page is not JSON.
    if (error.name === "AbortError") throw error;
  }
  sentence ||= `The service answers with status ${answer.status}`;
  return new Refused(answer.status, /[.!?…]$/.test(sentence) ? sentence : `${sentence}.`);
}
