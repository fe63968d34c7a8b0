// The server, as any client of its OpenAI-like API sees it. Paths are relative, so the page works under a prefix too.
//
// Notable: nothing is asked of the server but /v1/models and /v1/chat/completions. A failure becomes an ApiError with a
// sentence for the reader, `status` (0: not reached) and, where the server names one, `after` seconds to wait.

const KEY = "nanochat/key";

export class ApiError extends Error {
  constructor(message, { status = 0, after = null, code = null } = {}) {
    super(message);
    Object.assign(this, { status, after, code });
  }
}

const stores = () => [sessionStorage, localStorage];

export function apiKey() {
  try {
    return stores().map((store) => store.getItem(KEY)).find(Boolean) ?? "";
  } catch {
    return memoryKey;
  }
}

let memoryKey = "";

/** For this tab, or, with `keep`, for this browser. */
export function setApiKey(key, keep) {
  memoryKey = key;
  try {
    for (const store of stores()) store.removeItem(KEY);
    if (key) (keep ? localStorage : sessionStorage).setItem(KEY, key);
  } catch {
    // storage is switched off: the key lives as long as the page
  }
}

async function request(path, options = {}) {
  const headers = { ...options.headers };
  const key = apiKey();
  if (key) headers.Authorization = `Bearer ${key}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server cannot be reached. Is it still running?");
  }
  if (!response.ok) throw await failure(response);
  return response;
}

async function failure(response) {
  let error = {};
  try {
    error = (await response.json()).error ?? {};
  } catch {
    // not JSON: the status speaks for itself
  }
  const said = typeof error.message === "string" ? error.message : "";
  const seconds = Number(response.headers.get("Retry-After"));
  const after = seconds > 0 ? Math.min(Math.ceil(seconds), 600) : null;
  const words = {
    401: "The server asks for an API key.",
    429: "The server has as many requests as it takes. Try again in a moment.",
    503: "The server is not ready. Try again in a moment.",
  };
  const message = response.status in words && !said ? words[response.status] : said || `The server answered ${response.status}.`;
  return new ApiError(message, { status: response.status, after, code: error.code ?? null });
}

/** Names of the models, in the server's order. */
export async function models() {
  const response = await request("v1/models");
  const body = await response.json();
  return Array.isArray(body.data) ? body.data.map((m) => m.id).filter((id) => typeof id === "string") : [];
}

/**
 * The answer, piece by piece: `onText` for each; resolves to {finish, usage} when the server has said that it is done.
 * A stream that ends without saying so is an error: the answer may be half of one.
 */
export async function complete(body, signal, onText) {
  const response = await request("v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  const result = { finish: null, usage: null };
  try {
    for await (const data of events(response.body)) {
      if (data === "[DONE]") return result;
      take(JSON.parse(data), result, onText);
    }
  } catch (error) {
    if (error.name === "AbortError" || error instanceof ApiError) throw error;
    throw new ApiError("The connection broke off in the middle of the answer.");
  }
  if (!result.finish) throw new ApiError("The connection broke off in the middle of the answer.");
  return result;
}

function take(chunk, result, onText) {
  if (chunk.error) throw new ApiError(String(chunk.error.message ?? chunk.error), { status: 500 });
  const choice = chunk.choices?.[0];
  if (choice?.delta?.content) onText(choice.delta.content);
  if (choice?.finish_reason) result.finish = choice.finish_reason;
  if (chunk.usage) result.usage = chunk.usage;
}

/** The data of the server-sent events of a body; events may be cut anywhere, also inside a character. */
export async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      buffer += (value ?? "").replaceAll("\r\n", "\n");
      const parts = buffer.split("\n\n");
      buffer = done ? "" : parts.pop();
      for (const part of parts) {
        const lines = part.split("\n").filter((line) => line.startsWith("data:"));
        if (lines.length) yield lines.map((line) => line.slice(5).trimStart()).join("\n");
      }
      if (done) return;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
