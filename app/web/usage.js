// Usage: what was spent, by day, model and key.
import { html, useState } from "./vendor/preact-htm.js";
import { call } from "./api.js";
import { Bars, Meter } from "./charts.js";
import { Bones, Empty, Icon, Problem, Table, useLoaded } from "./parts.js";
import { count, money } from "./words.js";

const DAY = 86_400_000;
const iso = (time) => new Date(time).toISOString().slice(0, 10);
const SPANS = { 7: "7 days", 30: "30 days", 90: "90 days" };
const whole = (value) => new Intl.NumberFormat("en-US", { maximumFractionDigits: 1 }).format(value);

function sum(rows, field) {
  const groups = new Map();
  for (const row of rows) {
    const name = field(row);
    const group = groups.get(name) ?? { name, requests: 0, failed: 0, images: 0, cost: 0, unknown: false };
    group.requests += row.requests;
    group.failed += row.failed;
    group.images += row.images;
    group.cost += row.cost ?? 0;
    group.unknown ||= Boolean(row.cost_unknown);
    groups.set(name, group);
  }
  return [...groups.values()];
}

export function Usage() {
  const [span, setSpan] = useState(30);
  const [measure, setMeasure] = useState("cost");
  const to = iso(Date.now());
  const from = iso(Date.now() - (span - 1) * DAY);
  const { value, error, reload, busy } = useLoaded((signal) => call(`/v1/usage?from=${from}&to=${to}&by=day,key,model`, { signal }), [span]);
  const rows = value?.data ?? [];
  const currency = rows[0]?.currency ?? value?.total?.currency ?? "USD";
  const format = measure === "cost" ? (amount) => money(amount, currency) : whole;
  const days = new Map(sum(rows, (row) => row.day).map((day) => [day.name, day]));
  const bars = Array.from({ length: span }, (_, at) => iso(Date.now() - (span - 1 - at) * DAY)).map((day) => ({ label: day.slice(5), value: days.get(day)?.[measure] ?? 0 }));
  const total = sum(rows, () => "all")[0];
  const absent = error && (error.status === 404 || error.status === 405);
  return html`
    <div class="page">
      <div class="headline">
        <div><h1>Usage</h1><p class="muted">${from} to ${to}, in days of UTC.</p></div>
        <div class="row">
          <label class="row small" style=${{ flexWrap: "nowrap" }}>Show <select class="input" value=${measure} onChange=${(event) => setMeasure(event.target.value)}><option value="cost">cost</option><option value="images">pictures</option><option value="requests">requests</option></select></label>
          <label><span class="unseen">Period</span><select class="input" value=${String(span)} onChange=${(event) => setSpan(Number(event.target.value))}>${Object.entries(SPANS).map(([days, name]) => html`<option value=${days}>${name}</option>`)}</select></label>
        </div>
      </div>
      ${absent && html`<div class="card"><${Empty} icon="chart" title="Not available on this gateway" text="This gateway keeps no sums of usage. The request log has what each request cost."><a class="button" href="/requests">Open the request log</a><//></div>`}
      ${error && !absent && html`<${Problem} error=${error} onRetry=${reload} />`}
      ${busy && !value && html`<${Bones} heights=${[78, 240]} />`}
      ${value && !rows.length && html`<div class="card"><${Empty} icon="chart" title="Nothing was used in these days" text="Choose a longer period, or run something in the playground."><a class="button main" href="/"><${Icon} name="play" />Open the playground</a><//></div>`}
      ${total && html`
        <div class="stats">
          <div class="card stat"><span class="muted small">Cost</span><b>${money(total.cost, currency)}</b>${total.unknown && html`<span class="muted small">and some that is not known</span>`}</div>
          <div class="card stat"><span class="muted small">Pictures</span><b>${whole(total.images)}</b></div>
          <div class="card stat"><span class="muted small">Requests</span><b>${whole(total.requests)}</b></div>
          <div class="card stat"><span class="muted small">Failed</span><b>${whole(total.failed)}</b></div>
        </div>
        <section class="card panel" aria-label="By day">
          <h2>By day</h2>
          <${Bars} bars=${bars} format=${format} title=${`${measure} by day`} />
          <details><summary>As a table</summary><div class="scroll"><${Sums} name="Day" rows=${[...days.values()].sort((one, two) => two.name.localeCompare(one.name))} currency=${currency} /></div></details>
        </section>
        <div class="split">
          <${Ranking} title="By model" name="Model" rows=${sum(rows, (row) => row.model ?? "")} measure=${measure} currency=${currency} />
          <${Ranking} title="By key" name="Key" rows=${sum(rows, (row) => row.key_name || row.key || "")} measure=${measure} currency=${currency} />
        </div>
      `}
    </div>
  `;
}

const Sums = ({ name, rows, currency }) => html`<${Table} caption=${`Usage by ${name.toLowerCase()}`} keyOf=${(row) => row.name} rows=${rows} columns=${[
  { title: name, cell: (row) => row.name },
  { title: "Requests", right: true, cell: (row) => whole(row.requests) },
  { title: "Failed", right: true, cell: (row) => whole(row.failed) },
  { title: "Pictures", right: true, cell: (row) => whole(row.images) },
  { title: "Cost", right: true, cell: (row) => `${money(row.cost, currency)}${row.unknown ? " ?" : ""}` },
]} />`;

function Ranking({ title, name, rows, measure, currency }) {
  const sorted = [...rows].sort((one, two) => two[measure] - one[measure]);
  const most = sorted[0]?.[measure] || 1;
  return html`
    <section class="card panel" aria-label=${title}>
      <h2>${title}</h2>
      <ul class="stack" style=${{ gap: "10px" }}>
        ${sorted.slice(0, 8).map((row) => html`
          <li key=${row.name} class="stack" style=${{ gap: "4px" }}>
            <span class="row apart small"><span>${row.name}</span><span class="num">${measure === "cost" ? money(row.cost, currency) : count(row[measure], measure === "images" ? "picture" : "request")}</span></span>
            <div class="meter" aria-hidden="true"><i style=${{ width: `${(100 * row[measure]) / most}%` }}></i></div>
          </li>
        `)}
      </ul>
      <details><summary>As a table</summary><div class="scroll"><${Sums} name=${name} rows=${sorted} currency=${currency} /></div></details>
    </section>
  `;
}
