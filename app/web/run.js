// One run at a time. Pictures come as they are done; what came before a failure or a cancellation stays.
import { events, fault, fromBase64, safeUrl, send } from "./api.js";
import { OWN } from "./controls.js";
import { announce } from "./parts.js";
import { createStore } from "./store.js";

export const runs = createStore({ run: null });
let control = null;

/** The body of a run and of its dry run: the same, so that what is shown is what is sent. */
export function bodyOf({ model, edits, params, images, pictures, masks }) {
  if (!edits) return { model, ...params, stream: true, response_format: OWN.response_format };
  const form = new FormData();
  form.append("model", model);
  for (const picture of pictures) form.append(pictures.length > 1 ? `${images.name}[]` : images.name, picture.file, picture.name);
  for (const [name, mask] of masks) form.append(name, mask.file, mask.name);
  for (const [name, value] of Object.entries({ ...params, ...OWN })) form.append(name, String(value));
  return form;
}

export const pathOf = ({ edits }) => `/openai/v1/images/${edits ? "edits" : "generations"}`;

function patch(id, change) {
  runs.set(({ run }) => ({ run: run?.id === id ? { ...run, ...(typeof change === "function" ? change(run) : change) } : run }));
}

/** `expected` pictures of `shape` ("WxH", or null where nobody knows), made by a `sandbox` or not. */
export async function start(request, { expected, shape, sandbox }) {
  const old = runs.get().run;
  if (old) {
    for (const picture of old.pictures) URL.revokeObjectURL(picture.url);
    if (old.before) URL.revokeObjectURL(old.before);
  }
  control = new AbortController();
  const { signal } = control;
  const id = (old?.id ?? 0) + 1;
  const before = request.pictures.length ? URL.createObjectURL(request.pictures[0].file) : null;
  runs.set({ run: { id, state: "running", began: performance.now(), seconds: null, expected, shape, sandbox, before, pictures: [], failed: [], metadata: null, error: null, request: null } });
  announce("Running.");
  try {
    const answer = await send(pathOf(request), { method: "POST", body: bodyOf(request), signal });
    patch(id, { request: answer.headers.get("x-request-id") });
    if ((answer.headers.get("content-type") ?? "").startsWith("text/event-stream")) {
      for await (const event of events(answer, signal)) take(id, event, answer);
    } else {
      const body = await answer.json();
      body.data.forEach((one, index) => take(id, { ...one, index, size: body.size, output_format: body.output_format, type: "completed" }, answer));
      patch(id, { metadata: body.metadata });
    }
    const { run } = runs.get();
    if (run.id === id && !run.pictures.length && !run.failed.length) throw fault(null, answer);
    patch(id, { state: "done" });
    announce(`Done: ${run.pictures.length} of ${run.expected} pictures.`);
  } catch (error) {
    patch(id, { state: error.code === "cancelled" ? "cancelled" : "failed", error: error.code ? error : fault(null, null) });
  } finally {
    patch(id, (run) => ({ seconds: (performance.now() - run.began) / 1000 }));
  }
}

export function cancel() {
  control?.abort();
}

function take(id, event, answer) {
  if (event.error) throw fault(event.error, answer);
  if (event.metadata) patch(id, { metadata: event.metadata });
  if (event.type?.endsWith(".failed")) {
    patch(id, (run) => ({ failed: [...run.failed, event] }));
    announce(`Picture ${event.index + 1} failed.`);
    return;
  }
  const blob = event.b64_json ? fromBase64(event.b64_json, `image/${event.output_format ?? "png"}`) : null;
  const url = blob ? URL.createObjectURL(blob) : safeUrl(event.url);
  if (!url) return;
  const picture = { index: event.index ?? 0, url, blob, size: event.size, format: event.output_format ?? "png", revised: event.revised_prompt };
  patch(id, (run) => ({ expected: Math.max(run.expected, picture.index + 1), shape: run.shape ?? picture.size ?? null, pictures: [...run.pictures, picture].sort((one, two) => one.index - two.index) }));
  announce(`Picture ${picture.index + 1} is done.`);
}
