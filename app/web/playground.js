// The playground: a model's table becomes a form, the form a dry run at once and a run when asked for.
import { html, useEffect, useMemo, useRef, useState } from "./vendor/preact-htm.js";
import { call, idPath, session } from "./api.js";
import { CodeTabs } from "./code.js";
import { Control, MEDIA, inputOf, isGiven, layout, plain, typed } from "./controls.js";
import { MaskField } from "./mask.js";
import { Badge, Bones, Empty, Icon, Problem, Tabs, announce, useLoaded } from "./parts.js";
import { Pictures, forget, pictureOf } from "./pictures.js";
import { Plan, microsOf } from "./plan.js";
import { Result } from "./result.js";
import { bodyOf, cancel, pathOf, runs, start } from "./run.js";
import { createStore, useStore } from "./store.js";
import { DOES, SANDBOX, byMode, count, exampleFor, money, perUnit } from "./words.js";

const ESTIMATE_MS = 300;
const HEAVY = 4 << 20; // above so many bytes, words are waited for longer before all is sent again

// What was typed and chosen; it stays while other pages are looked at.
export const draft = createStore({ model: null, offer: "", values: {}, pictures: [], masks: {} });

export function Playground() {
  const models = useLoaded((signal) => call("/openai/v1/models", { signal }), []);
  const { key } = useStore(session);
  if (models.error) {
    return html`<div class="page"><h1>Playground</h1><${Problem} error=${models.error} onRetry=${models.reload} /></div>`;
  }
  if (models.value && !models.value.data.length) {
    return html`<div class="page"><h1>Playground</h1><div class="card"><${Empty} icon="picture" title="No models yet" text="Add a model file to the folder that IMAGEGATE_MODELS_DIR names, and start the gateway again." /></div></div>`;
  }
  return html`<${Desk} models=${models.value?.data} keyed=${Boolean(key)} />`;
}

function Desk({ models, keyed }) {
  const { model: chosen, offer, values, pictures, masks } = useStore(draft);
  const { run } = useStore(runs);
  const wanted = new URLSearchParams(location.search).get("model");
  const id = models && (models.find((one) => one.id === (wanted ?? chosen)) ?? models.find((one) => one.id === chosen) ?? models[0]).id;
  const schema = useLoaded((signal) => (id ? call(`/v1/models/${idPath(id)}?schema=true`, { signal }) : new Promise(() => {})), [id]);
  const model = schema.value?.id === id ? schema.value : null;
  const source = model && (model.providers.find((one) => one.id === offer) ?? model.providers[0]);
  const rows = useMemo(() => source && layout(source.parameters), [source]);
  const edits = !model || model.modes.includes("image-edit");
  const images = (edits && inputOf(rows?.media)) || null;
  const others = (edits && rows?.media.filter((row) => row !== images)) || [];
  const most = source?.max_images ?? 1;
  const [tab, setTab] = useState("result");
  const [problems, setProblems] = useState({});
  const [unfolded, unfold] = useState(innerWidth > 900);
  const form = useRef(null);

  const request = model && { model: offer && model.providers.length > 1 ? `${offer}/${model.id}` : model.id, edits, params: paramsOf(rows, values), images, pictures: images ? pictures : [], masks: edits ? others.filter((row) => masks[row.name]).map((row) => [row.name, masks[row.name]]) : [] };
  const missing = rows ? [...(images?.required && !pictures.length ? [images] : []), ...others.filter((row) => row.required && !masks[row.name]), ...rows.texts.filter((row) => !isGiven(values[row.name]?.trim?.() ?? values[row.name]))] : [];
  const tooLarge = source && pictures.find((picture) => images && picture.file.size > source.accepts.max_bytes);
  const { estimate, error, busy } = useEstimate(request, Boolean(model) && !missing.length && !tooLarge && pictures.length <= 64);
  const running = run?.state === "running";

  const set = (name, value) => {
    draft.set((old) => ({ values: { ...old.values, [name]: value } }));
    setProblems((old) => ({ ...old, [name]: undefined }));
  };
  const setPictures = (next) => {
    draft.set({ pictures: next });
    setProblems((old) => ({ ...old, [images?.name]: undefined }));
  };
  const sample = async () => {
    const blob = await (await fetch(new URL("./sample.jpg", import.meta.url))).blob();
    draft.set((old) => ({ pictures: [...old.pictures, pictureOf(new File([blob], "coffee.jpg", { type: "image/jpeg" }))] }));
  };
  const submit = (event) => {
    event.preventDefault();
    if (!model || running) return;
    if (missing.length) {
      setProblems(Object.fromEntries(missing.map((row) => [row.name, row === images ? "Add a picture first." : row.name === "mask" ? "Paint what may change first." : MEDIA.has(row.type) ? `Choose the ${row.name} first.` : "Write what to do first."])));
      document.getElementById(`p-${missing[0].name}`)?.focus();
      announce(`Missing: ${missing.map((row) => row.name).join(", ")}`);
      return;
    }
    setTab("result");
    const fresh = estimate && !busy;
    const shape = fresh ? (estimate.plan.delivery.size ?? estimate.plan.size) : null;
    start(request, { sandbox: source.sandbox, expected: fresh ? estimate.plan.delivery.count : Number(request.params.n) || 1, shape });
    if (innerWidth <= 900) document.querySelector(".see")?.scrollIntoView({ behavior: "smooth", block: "start" });
  };
  const keys = (event) => (event.ctrlKey || event.metaKey) && event.key === "Enter" && form.current.requestSubmit();

  const known = (name) => rows && source.parameters.some((row) => row.name === name);
  const shownErrors = { ...problems };
  if (error && error.param && known(error.param)) shownErrors[error.param] ??= error.message;
  if (tooLarge) shownErrors[images.name] ??= `${tooLarge.name} is too large for this model: make it smaller (fewer pixels, or JPEG), and add it again.`;
  const loose = error && error.code !== "cancelled" && !(error.param && known(error.param)) ? error : null;
  const control = (row, wide) => html`<${Control} key=${row.name} row=${row} value=${values[row.name]} sizing=${source.sizing} error=${shownErrors[row.name]} wide=${wide} example=${row.name === "prompt" ? `For example: ${exampleFor(edits)}` : ""} onChange=${(value) => set(row.name, value)} />`;

  const tabs = {
    result: ["Result", html`<${Result} run=${run} onReuse=${(picture) => setPictures(images && most > 1 ? [...pictures, picture] : [picture])} onRetry=${() => form.current.requestSubmit()} />`],
    plan: ["What will be sent", estimate
      ? html`<${Plan} estimate=${estimate} />`
      : html`<div class="stage"><${Empty} icon="list" title="Nothing to send yet" text=${missing.length ? `Add ${missing.map((row) => (row === images ? "a picture" : `a ${row.name}`)).join(" and ")}: the plan and its price appear here before anything is bought.` : error ? "Mend what is marked: then the plan appears here." : "The plan is being made."} /></div>`],
    code: ["Code", request ? html`<${CodeTabs} name="code" request=${sampleOf(request, keyed)} />` : html`<${Bones} heights=${[200]} />`],
  };

  return html`
    <div class="play">
      <section class="ask" aria-label="Request">
        <form ref=${form} onSubmit=${submit} onKeyDown=${keys} novalidate>
          <div class="fields">
            <h1 class="unseen">Playground</h1>
            <div class="field">
              <div class="head"><label for="model">Model</label>${model && html`<a class="small" href=${`/models/${idPath(model.id)}`}>About it</a>`}</div>
              <select id="model" class="input" value=${id ?? ""} disabled=${!models} onChange=${(event) => { draft.set({ model: event.target.value, offer: "" }); history.replaceState(null, "", "/"); }}>
                ${models ? byMode(models).map(([mode, some]) => html`<optgroup label=${DOES[mode] ?? mode}>${some.map((one) => html`<option value=${one.id}>${one.name}</option>`)}</optgroup>`) : html`<option value="">Loading …</option>`}
              </select>
              <p class="hint">${model ? model.description : "\u00a0"}</p>
              ${source?.sandbox && html`<p class="hint standin"><${Icon} name="info" /><span>${SANDBOX}</span></p>`}
            </div>
            ${model && model.providers.length > 1 && html`
              <div class="field">
                <div class="head"><label for="offer">Provider</label></div>
                <select id="offer" class="input" value=${offer} onChange=${(event) => draft.set({ offer: event.target.value })}>
                  <option value="">Automatic: the first that works</option>
                  ${model.providers.map((one) => html`<option value=${one.id}>${one.name}, ${perUnit(one.price)}</option>`)}
                </select>
              </div>
            `}
            ${schema.error && html`<${Problem} error=${schema.error} onRetry=${schema.reload} />`}
            ${!rows && !schema.error && html`<${Bones} heights=${[132, 122, 62, 62, 62]} />`}
            ${images && html`<${Pictures} row=${images} pictures=${pictures} most=${most} onChange=${setPictures} onSample=${sample} error=${shownErrors[images.name]}><${Badge} how=${images.how} /><//>`}
            ${others.map((row) => (row.name === "mask" && !pictures.length && !masks.mask ? null : html`<${MaskField} key=${row.name} row=${row} mask=${masks[row.name]} picture=${pictures[0]} error=${shownErrors[row.name]} onChange=${(made) => { setMask(row.name, made); setProblems((old) => ({ ...old, [row.name]: undefined })); }} />`))}
            ${rows && html`
              ${rows.texts.map((row) => control(row, true))}
              ${rows.front.length > 0 && html`
                <details open=${unfolded} onToggle=${(event) => unfold(event.target.open)}>
                  <summary>Settings <${Changed} rows=${rows.front} values=${values} /></summary>
                  <div class="lines" style=${{ paddingTop: "10px" }}>${rows.front.map((row) => control(row))}</div>
                </details>
              `}
              ${rows.more.length > 0 && html`
                <details>
                  <summary>More settings <${Changed} rows=${rows.more} values=${values} /></summary>
                  <div class="lines" style=${{ paddingTop: "10px" }}>${rows.more.map((row) => control(row, row.max_length > 1000))}</div>
                </details>
              `}
              ${rows.ignored.length > 0 && html`
                <details>
                  <summary>Without effect here <span class="badge plain">${rows.ignored.length}</span></summary>
                  <ul class="stack small" style=${{ gap: "6px", paddingTop: "8px" }}>${rows.ignored.map((row) => html`<li><code>${row.name}</code> <span class="muted">${plain(row.description)}</span></li>`)}</ul>
                </details>
              `}
            `}
          </div>
          <div class="go">
            ${loose && html`<${Problem} error=${loose} />`}
            <div class="bar">
              <output aria-live="polite" aria-busy=${String(busy)}>
                ${estimate
                  ? html`<b>${microsOf(estimate) === null ? "Price unknown" : money(microsOf(estimate), estimate.currency)}</b><span class="muted small">${count(estimate.plan.delivery.count, "picture")}${estimate.plan.size ? ` of ${estimate.plan.delivery.size ?? estimate.plan.size}` : ""}</span>`
                  : html`<b>${source ? perUnit(source.price) : "\u00a0"}</b><span class="muted small">${missing.length && source?.price ? "The exact price follows your input" : busy ? "Working out the price …" : "\u00a0"}</span>`}
              </output>
              ${running
                ? html`<button key="cancel" type="button" class="button main" onClick=${cancel}><${Icon} name="stop" />Cancel</button>`
                : html`<button key="run" type="submit" class="button main" disabled=${!model} title="Ctrl + Enter"><${Icon} name="play" />Run</button>`}
            </div>
          </div>
        </form>
      </section>
      <section class="see" aria-label="Result, plan and code">
        <${Tabs} tabs=${tabs} chosen=${tab} onChoose=${setTab} label="Views" name="see" />
      </section>
    </div>
  `;
}

function Changed({ rows, values }) {
  const changed = rows.filter((row) => isGiven(values[row.name])).length;
  return html`<span class="badge plain">${changed ? `${changed} of ${rows.length} set` : rows.length}</span>`;
}

function setMask(name, made) {
  const { masks } = draft.get();
  if (masks[name]) forget(masks[name]);
  draft.set({ masks: { ...masks, [name]: made ?? undefined } });
}

/** The values that are sent, as numbers where their rows want numbers. */
function paramsOf(rows, values) {
  const knobs = [...rows.texts, ...rows.front, ...rows.more];
  return Object.fromEntries(knobs.filter((row) => isGiven(values[row.name])).map((row) => [row.name, typed(row, values[row.name])]));
}

function sampleOf({ model, edits, params, images, pictures, masks }, keyed) {
  const files = pictures.length ? pictures.map((picture) => picture.name) : ["picture.png"];
  return { base: location.origin, keyed, model, edits, params: { ...params, prompt: params.prompt ?? "…" }, images: { row: images?.name ?? "image", files }, mask: masks.find(([name]) => name === "mask")?.[1].name };
}

/** The dry run of what is in the form: a moment after the last change, and never an outdated one. */
function useEstimate(request, ready) {
  const { key } = useStore(session);
  const [state, set] = useState({ estimate: null, error: null, busy: false });
  const words = JSON.stringify(request && [request.model, request.params]);
  const files = JSON.stringify(request && [request.pictures.map((one) => one.id), request.masks.map(([name, one]) => [name, one.id])]);
  const seen = useRef("");
  useEffect(() => {
    if (!ready) {
      set({ estimate: null, error: null, busy: false });
      return undefined;
    }
    const control = new AbortController();
    set((old) => ({ ...old, error: null, busy: true }));
    const weight = request.pictures.reduce((sum, one) => sum + one.file.size, 0);
    const wait = weight > HEAVY && seen.current === files ? 4 * ESTIMATE_MS : ESTIMATE_MS;
    const timer = setTimeout(() => {
      seen.current = files;
      call(`${pathOf(request)}?dryRun=true`, { method: "POST", body: bodyOf(request), signal: control.signal }).then(
        (estimate) => !control.signal.aborted && set({ estimate, error: null, busy: false }),
        (error) => !control.signal.aborted && set({ estimate: null, error, busy: false }),
      );
    }, wait);
    return () => {
      clearTimeout(timer);
      control.abort();
    };
  }, [ready, words, files, key]);
  return state;
}
