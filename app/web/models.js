// Models, and one model: what its rows say, and nothing else.
import { html, useState } from "./vendor/preact-htm.js";
import { call, idPath, session } from "./api.js";
import { CodeTabs } from "./code.js";
import { MEDIA, OWN, inputOf, plain } from "./controls.js";
import { Badge, Bones, Empty, Icon, Problem, Table, Tabs, useLoaded } from "./parts.js";
import { useStore } from "./store.js";
import { DOES, HOW, SANDBOX, byMode, bytes, count, exampleFor, money, perUnit } from "./words.js";

const MODES = { "image-edit": "edits pictures", "text-to-image": "makes pictures of words" };

export function Models() {
  const { value, error, reload } = useLoaded((signal) => call("/openai/v1/models", { signal }), []);
  return html`
    <div class="page">
      <div class="headline"><div><h1>Models</h1><p class="muted">What each does, takes and costs. Its page has every parameter, and code to call it.</p></div></div>
      ${error && html`<${Problem} error=${error} onRetry=${reload} />`}
      ${!value && !error && html`<${Bones} heights=${[150]} />`}
      ${value && !value.data.length && html`<div class="card"><${Empty} icon="picture" title="No models yet" text="Add a model file to the folder that IMAGEGATE_MODELS_DIR names, and start the gateway again." /></div>`}
      ${value && html`
        ${byMode(value.data).map(([mode, models]) => html`
          <h2 key=${mode}>${DOES[mode] ?? mode}</h2>
          <div class="tiles">
            ${models.map((model) => html`<${Tile} key=${model.id} model=${model} />`)}
          </div>
        `)}
      `}
    </div>
  `;
}

const Tile = ({ model }) => html`
  <a class="card tile" href=${`/models/${idPath(model.id)}`}>
    <h3>${model.name}</h3>
    <code class="muted">${model.id}</code>
    <p class="small">${model.description}</p>
    <div class="row">
      ${model.modes.length > 1 && model.modes.map((mode) => html`<span class="badge plain">${MODES[mode] ?? mode}</span>`)}
      ${model.providers.map((one) => html`<span class="badge plain">${one.name}</span>`)}
      <span class="badge plain num">${model.starting_price === null ? "price unknown" : `from ${money(model.starting_price, model.price_currency)} ${model.price_unit === "image" ? "an" : "a"} ${model.price_unit}`}</span>
    </div>
  </a>
`;

export function Model({ id }) {
  const { value: model, error, reload } = useLoaded((signal) => call(`/v1/models/${idPath(id)}?schema=true`, { signal }), [id]);
  const { key } = useStore(session);
  const [offer, choose] = useState(0);
  if (error) return html`<div class="page"><h1>${id}</h1><${Problem} error=${error} onRetry=${reload}><a class="button tiny" href="/models">All models</a><//></div>`;
  if (!model) return html`<div class="page"><${Bones} heights=${[60, 160, 320]} /></div>`;
  const source = model.providers[offer] ?? model.providers[0];
  const tabs = Object.fromEntries(model.providers.map((one, at) => [at, [one.name, html`<${Offer} offer=${one} />`]]));
  return html`
    <div class="page">
      <div class="headline">
        <div>
          <h1>${model.name}</h1>
          <div class="row"><code class="muted">${model.id}</code>${model.aliases.map((alias) => html`<span class="badge plain" title="Also called">${alias}</span>`)}</div>
        </div>
        <a class="button main" href=${`/?model=${encodeURIComponent(model.id)}`}><${Icon} name="play" />Try it</a>
      </div>
      <p>${model.description} <span class="muted">By ${model.creator_organization}; ${model.modes.map((mode) => MODES[mode] ?? mode).join(", ")}.</span></p>
      ${model.providers.length > 1 ? html`<${Tabs} tabs=${tabs} chosen=${String(offer)} onChoose=${(at) => choose(Number(at))} label="Providers" name="offers" />` : html`<${Offer} offer=${source} />`}
      <h2>Call it</h2>
      <${CodeTabs} name="model-code" request=${exampleOf(model, source, Boolean(key))} />
    </div>
  `;
}

// What the model makes, as far as its file says: free sides, or some of a list, or what it likes. Nothing where sizes go on as they are.
function sizesOf({ sizing, parameters }) {
  if (sizing.write === "none") return parameters.some((row) => row.name === "size" && row.how === "converted") ? [["Sizes it makes", "its own"]] : [];
  const listed = sizing.write === "preset" ? [...new Set(Object.values(sizing.presets))] : sizing.sizes;
  const free = sizing.write !== "ratio" && listed.length === 0;
  return [
    ["Sides it makes", free ? `${sizing.min_side} to ${sizing.max_side} pixels, in steps of ${sizing.multiple_of}` : ""],
    ["Sizes it makes", listed.join(", ")],
    ["Scales", Object.keys(sizing.tiers).join(", ")],
    ["Shapes", sizing.ratios.join(", ")],
  ].filter(([, text]) => text);
}

function Offer({ offer }) {
  const { accepts, price } = offer;
  const rows = offer.parameters.filter((row) => row.how !== "rejected" && row.how !== "ignored");
  const ignored = offer.parameters.filter((row) => row.how === "ignored");
  const rejected = offer.parameters.filter((row) => row.how === "rejected");
  return html`
    <div class="split">
      <section class="card panel" aria-label="Provider and price">
        <h2>Provider and price</h2>
        <dl class="facts">
          <dt>Provider</dt><dd>${offer.name}${offer.sandbox && html`<br /><span class="muted small">${SANDBOX}</span>`}</dd>
          <dt>Endpoint</dt><dd><code>${offer.endpoint}</code></dd>
          <dt>Price</dt><dd class="num">${perUnit(price)}</dd>
        </dl>
      </section>
      <section class="card panel" aria-label="Limits">
        <h2>Limits</h2>
        <dl class="facts">
          ${offer.modes.includes("image-edit") ? html`
            <dt>Pictures in</dt><dd>up to ${accepts.images}, each ${bytes(accepts.max_bytes)} and ${Math.round(accepts.max_pixels / 1e6)} megapixels</dd>
            <dt>Formats it reads</dt><dd>${accepts.formats.join(", ")}; others are converted</dd>
          ` : html`<dt>Pictures in</dt><dd>none: from words alone</dd>`}
          ${sizesOf(offer).map(([name, text]) => html`<dt>${name}</dt><dd class="num">${text}</dd>`)}
        </dl>
      </section>
    </div>
    <h2>Parameters</h2>
    <div class="card scroll">
      <${Table} caption="Parameters" keyOf=${(row) => row.name} rows=${rows} columns=${[
        { title: "Name", cell: (row) => html`<code>${row.name}</code>${row.required ? html` <span class="muted small">required</span>` : ""}` },
        { title: "Becomes", cell: (row) => html`<${Badge} how=${row.how} />${row.sent_as && row.sent_as !== row.name ? html` <code class="muted">${row.sent_as}</code>` : ""}` },
        { title: "Type", cell: (row) => row.type },
        { title: "Allowed", cell: allowed },
        { title: "Default", cell: (row) => (row.default === undefined ? "" : html`<code>${JSON.stringify(row.default)}</code>`) },
        { title: "Meaning", cell: (row) => html`${plain(row.description)}${row.aliases ? html` <span class="muted">Also: ${row.aliases.join(", ")}.</span>` : ""}` },
      ]} />
    </div>
    <ul class="row small muted" aria-label="What the badges mean">${[...new Set(rows.map((row) => row.how))].map((how) => html`<li class="row" style=${{ gap: "6px" }}><${Badge} how=${how} />${HOW[how]}</li>`)}</ul>
    ${ignored.length > 0 && html`<details><summary>Accepted without effect <span class="badge plain">${ignored.length}</span></summary><${Names} rows=${ignored} /></details>`}
    ${rejected.length > 0 && html`<details><summary>Refused <span class="badge plain">${rejected.length}</span></summary><${Names} rows=${rejected} /></details>`}
  `;
}

const Names = ({ rows }) => html`<dl class="facts" style=${{ padding: "8px 0" }}>${rows.map((row) => html`<dt><code>${row.name}</code></dt><dd>${plain(row.description)}</dd>`)}</dl>`;

function allowed(row) {
  if (row.values) return row.values.join(", ");
  if (row.min !== undefined || row.max !== undefined) return `${row.min ?? "…"} to ${row.max ?? "…"}`;
  return row.max_length ? `up to ${count(row.max_length, "character")}` : "";
}

/** A request that shows how the model is called: what is required, and the first knob of each kind. */
function exampleOf(model, offer, keyed) {
  const edits = model.modes.includes("image-edit");
  const params = {};
  for (const row of offer.parameters) if (row.required && !MEDIA.has(row.type)) params[row.name] = row.name === "prompt" ? exampleFor(edits) : (row.default ?? row.values?.[0] ?? row.min ?? "…");
  const usable = offer.parameters.filter((row) => ["renamed", "converted", "emulated"].includes(row.how) && !(row.name in OWN) && !MEDIA.has(row.type));
  const number = usable.find((row) => row.how === "renamed" && typeof row.default === "number");
  if (number) params[number.name] = number.default;
  if (usable.some((row) => row.name === "size")) params.size = "1024x1024";
  return { base: location.origin, keyed, model: model.id, edits, params, images: { row: inputOf(offer.parameters)?.name ?? "image", files: ["picture.png"] }, mask: offer.parameters.some((row) => row.name === "mask" && row.required) ? "mask.png" : undefined };
}
