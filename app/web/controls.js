// A control for each row of a model's parameter table. What a row says (type, bounds, values, default) is all that decides.
import { html } from "./vendor/preact-htm.js";
import { Badge, Icon } from "./parts.js";

export const MEDIA = new Set(["image", "images"]);
// The page asks for its own way of delivery: each picture as soon as it is done, as bytes.
export const OWN = { stream: "true", response_format: "b64_json" };
// What nearly every model has stands in front; the rest of a table is one click away.
const FRONT = ["size", "aspect_ratio", "resolution", "n", "seed", "output_format", "output_compression"];

/** Rows of an offer as the playground lays them out. */
export function layout(rows) {
  const usable = rows.filter((row) => row.how !== "rejected");
  const knobs = usable.filter((row) => row.how !== "ignored" && !MEDIA.has(row.type) && !(row.name in OWN));
  return {
    media: usable.filter((row) => row.how !== "ignored" && MEDIA.has(row.type)),
    texts: knobs.filter((row) => row.required),
    front: FRONT.flatMap((name) => knobs.filter((row) => row.name === name && !row.required)),
    more: knobs.filter((row) => !row.required && !FRONT.includes(row.name)),
    ignored: usable.filter((row) => row.how === "ignored"),
  };
}

/** The row that takes what is edited: several pictures, or the one. */
export const inputOf = (media) => media?.find((row) => row.type === "images") ?? media?.find((row) => row.name === "image");

/** What is sent for a field: a number where the row wants one and the text is one; else the text, for the gateway to judge. */
export function typed(row, value) {
  if ((row.type === "integer" || row.type === "number") && String(value).trim() !== "" && Number.isFinite(Number(value))) return Number(value);
  if ((row.type === "list" || row.type === "object") && typeof value === "string") {
    try {
      return JSON.parse(value);
    } catch {
      return value;
    }
  }
  return value;
}

export const isGiven = (value) => value !== undefined && value !== "";

const shown = (value) => (typeof value === "string" && value.trim() === value && value ? value : JSON.stringify(value));

function suggestions(row, sizing) {
  if (sizing.write === "none") return [];
  if (row.name === "resolution") return Object.keys(sizing.tiers);
  if (row.name === "aspect_ratio") return sizing.ratios.length ? sizing.ratios : ["1:1", "4:3", "3:4", "3:2", "2:3", "16:9", "9:16"];
  if (row.name === "size") return ["auto", ...(sizing.sizes.length ? sizing.sizes : [...new Set(Object.values(sizing.presets))])];
  return [];
}

export function Control({ row, example, value, onChange, sizing, error, wide }) {
  const id = `p-${row.name}`;
  const given = isGiven(value);
  const about = { id, "aria-describedby": `${id}-hint${error ? ` ${id}-wrong` : ""}`, "aria-invalid": error ? "true" : undefined };
  const isNumber = row.type === "integer" || row.type === "number";
  const span = row.max - row.min;
  const slides = isNumber && row.default !== undefined && span > 0 && span <= 1000;
  const listed = suggestions(row, sizing);
  const fallback = row.default === undefined ? (row.required ? "" : "not set") : `default ${shown(row.default)}`;
  const input = (event) => onChange(event.target.value === "" ? undefined : event.target.value);
  let control;
  if (row.type === "boolean") {
    control = typeof row.default === "boolean"
      ? html`<div><input ...${about} type="checkbox" role="switch" class="switch" checked=${given ? value : row.default} onChange=${(event) => onChange(event.target.checked === row.default ? undefined : event.target.checked)} /></div>`
      : html`<select ...${about} class="input" value=${given ? String(value) : ""} onChange=${(event) => onChange(event.target.value === "" ? undefined : event.target.value === "true")}><option value="">not set</option><option value="true">true</option><option value="false">false</option></select>`;
  } else if (row.values) {
    control = html`<select ...${about} class="input" value=${given ? value : ""} onChange=${input}><option value="">${fallback}</option>${row.values.map((one) => html`<option value=${one}>${one}</option>`)}</select>`;
  } else if (slides) {
    const step = row.type === "integer" ? 1 : span > 10 ? 0.1 : 0.01;
    control = html`
      <div class="range">
        <input type="range" aria-label=${`${row.name}, slider`} min=${row.min} max=${row.max} step=${step} value=${given ? value : row.default} onInput=${input} />
        <input ...${about} class="input num" type="number" inputmode="decimal" min=${row.min} max=${row.max} step=${row.type === "integer" ? 1 : "any"} placeholder=${String(row.default)} value=${given ? value : ""} onInput=${input} />
      </div>
    `;
  } else if (isNumber) {
    const dice = row.type === "integer" && span > 1e6;
    const roll = () => onChange(String(row.min + Math.floor(Math.random() * Math.min(span, 2 ** 31))));
    control = html`
      <div class="row" style=${{ flexWrap: "nowrap" }}>
        <input ...${about} class="input num" type="number" inputmode="numeric" min=${row.min} max=${row.max} step=${row.type === "integer" ? 1 : "any"} placeholder=${fallback} value=${given ? value : ""} onInput=${input} />
        ${dice && html`<button type="button" class="button square" aria-label=${`Random ${row.name}`} title="Random" onClick=${roll}><${Icon} name="dice" /></button>`}
      </div>
    `;
  } else if (row.required || row.max_length > 1000) {
    control = html`<textarea ...${about} class="input" rows=${row.required ? 4 : 2} required=${row.required} placeholder=${row.required ? (example ?? "") : fallback} value=${value ?? ""} onInput=${input}></textarea>`;
  } else {
    control = html`
      <input ...${about} class="input" type="text" autocomplete="off" spellcheck=${false} placeholder=${fallback} list=${listed.length ? `${id}-list` : undefined} value=${value ?? ""} onInput=${input} />
      ${listed.length > 0 && html`<datalist id=${`${id}-list`}>${listed.map((one) => html`<option value=${one}></option>`)}</datalist>`}
    `;
  }
  const hint = html`${plain(row.description)}${row.sent_as && row.sent_as !== row.name ? html` <span>Sent as <code>${row.sent_as}</code>.</span>` : ""}`;
  const wrong = error && html`<p class="wrong" id=${`${id}-wrong`}>${error}</p>`;
  if (wide) {
    return html`
      <div class="field">
        <div class="head"><label class="mono" for=${id}>${row.name}</label><${Badge} how=${row.how} /></div>
        ${control}${wrong}
        <p class="hint" id=${`${id}-hint`}>${hint}</p>
      </div>
    `;
  }
  return html`
    <div class="line">
      <div class="name"><label class="mono" for=${id}>${breakable(row.name)}</label><${Badge} how=${row.how} /></div>
      <div class="what">${control}${wrong}<p class="hint" id=${`${id}-hint`}>${hint}</p></div>
    </div>
  `;
}

/** A name that may break after its underscores. */
const breakable = (name) => name.split("_").flatMap((part, at) => (at ? ["_", html`<wbr />`, part] : [part]));

/** Descriptions are Markdown to the extent of `code`. */
export const plain = (text) => (text ?? "").replaceAll("`", "");
