// The gateway's own API, as everybody calls it. The key lives in memory, or for this tab if its owner wants it so.
import { createStore } from "./store.js";

const KEPT = "imagegate.key";

export const session = createStore({ key: kept(), keep: Boolean(kept()), asking: false });

export class ApiError extends Error {
  constructor(code, message, more = {}) {
    super(message);
    this.code = code;
    Object.assign(this, { status: 0, param: null, requestId: null, retryAfter: null, ...more });
  }
}

export function setKey(key, keep) {
  try {
    if (keep && key) sessionStorage.setItem(KEPT, key);
    else sessionStorage.removeItem(KEPT);
  } catch {
    // storage is switched off: memory it is
  }
  session.set({ key, keep: keep && Boolean(key), asking: false });
}

function kept() {
  try {
    return sessionStorage.getItem(KEPT) || "";
  } catch {
    return "";
  }
}

/** The raw answer of a call that succeeded. Throws ApiError, with code "cancelled" if `signal` ended it. */
export async function send(path, { method = "GET", body, signal } = {}) {
  const { key } = session.get();
  const headers = {};
  if (key && !/^[\x21-\x7e]+$/.test(key)) {
    throw new ApiError("invalid_api_key", "The API key holds characters that no key has.", { status: 401 });
  }
  if (key) headers.authorization = `Bearer ${key}`;
  if (body !== undefined && !(body instanceof FormData)) {
    headers["content-type"] = "application/json";
    body = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(path, { method, body, headers, signal, credentials: "omit", cache: "no-store" });
  } catch (error) {
    throw broken(error, signal);
  }
  if (answer.ok) return answer;
  let said = null;
  try {
    said = (await answer.json()).error;
  } catch {
    // not ours: a proxy's page
  }
  throw fault(said, answer);
}

/** The JSON of a call. Throws ApiError. */
export async function call(path, options) {
  const answer = await send(path, options);
  if (answer.status === 204) return null;
  try {
    return await answer.json();
  } catch (error) {
    throw broken(error, options?.signal);
  }
}

/** Server-sent events of an answer, parsed. Pictures are megabytes: pieces are joined once for each event. */
export async function* events(answer, signal) {
  const reader = answer.body.getReader();
  const decoder = new TextDecoder();
  let pieces = [];
  let last = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      const text = done ? decoder.decode() : decoder.decode(value, { stream: true });
      if (text) pieces.push(text);
      if ((last + text).includes("\n\n")) {
        const whole = pieces.join("").split("\n\n");
        pieces = [whole.pop()];
        for (const block of whole) {
          const data = block.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trim());
          if (data.length) yield JSON.parse(data.join("\n"));
        }
      }
      last = text.slice(-1);
      if (done) return;
    }
  } catch (error) {
    throw error instanceof ApiError ? error : broken(error, signal);
  } finally {
    reader.cancel().catch(() => {});
  }
}

export function fault(said, answer) {
  const more = {
    status: answer?.status ?? 0,
    requestId: answer?.headers.get("x-request-id") ?? null,
    retryAfter: answer?.headers.get("retry-after") ?? null,
    param: said?.param ?? null,
  };
  if (said && said.code) return new ApiError(String(said.code), String(said.message ?? ""), more);
  return new ApiError("unreadable", `The answer was no error of imagegate's (HTTP ${more.status}).`, more);
}

function broken(error, signal) {
  if (signal?.aborted || error?.name === "AbortError") return new ApiError("cancelled", "You cancelled it.");
  if (error instanceof SyntaxError) return new ApiError("unreadable", "The answer could not be read.");
  return new ApiError("unreachable", "The gateway did not answer.");
}

/** A path segment for each step of an id, which may hold slashes. */
export const idPath = (id) => String(id).split("/").map(encodeURIComponent).join("/");

/** A URL that may stand in a link or a picture; what is no picture's URL is left out. */
export function safeUrl(url) {
  try {
    const parsed = new URL(url, location.href);
    return ["http:", "https:", "blob:"].includes(parsed.protocol) ? parsed.href : null;
  } catch {
    return null;
  }
}

export function fromBase64(text, type) {
  if (Uint8Array.fromBase64) return new Blob([Uint8Array.fromBase64(text)], { type });
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let at = 0; at < binary.length; at += 1) bytes[at] = binary.charCodeAt(at);
  return new Blob([bytes], { type });
}
