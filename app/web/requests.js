// The request log: what became of each request, what it cost, and its pictures while they are kept.
import { html, useState } from "./vendor/preact-htm.js";
import { call, safeUrl } from "./api.js";
import { Bones, Code, Empty, Icon, Problem, Table, useLoaded } from "./parts.js";
import { Notes } from "./plan.js";
import { costOf, count, money, when } from "./words.js";

const PAGE = 25;
const STATES = { "": "All", running: "Running", completed: "Completed", partial: "Partial", failed: "Failed", cancelled: "Cancelled" };

const Status = ({ status }) => html`<span class=${`badge ${status}`}>${status}</span>`;
const pathOf = (id) => `/requests/${encodeURIComponent(id)}`;

export function Requests() {
  const [state, setState] = useState("");
  const [more, setMore] = useState({ rows: [], last: null, error: null, busy: false });
  const query = (after) => `/v1/requests?limit=${PAGE}${state ? `&status=${state}` : ""}${after ? `&after=${encodeURIComponent(after)}` : ""}`;
  const first = useLoaded((signal) => {
    setMore({ rows: [], last: null, error: null, busy: false });
    return call(query(), { signal });
  }, [state]);
  const rows = [...(first.value?.data ?? []), ...more.rows];
  const page = more.last ?? first.value;
  const load = async () => {
    setMore({ ...more, busy: true });
    try {
      const next = await call(query(page.last_id));
      setMore({ rows: [...more.rows, ...next.data], last: next, error: null, busy: false });
    } catch (error) {
      setMore({ ...more, error, busy: false });
    }
  };
  return html`
    <div class="page">
      <div class="headline">
        <div><h1>Requests</h1><p class="muted">What became of each request that this key may see, newest first.</p></div>
        <div class="row">
          <label class="row small" style=${{ flexWrap: "nowrap" }}>Show <select class="input" value=${state} onChange=${(event) => setState(event.target.value)}>${Object.entries(STATES).map(([value, name]) => html`<option value=${value}>${name}</option>`)}</select></label>
          <button type="button" class="button" onClick=${first.reload}><${Icon} name="again" />Refresh</button>
        </div>
      </div>
      ${first.error && html`<${Problem} error=${first.error} onRetry=${first.reload} />`}
      ${!first.value && !first.error && html`<${Bones} heights=${[44, 44, 44, 44]} />`}
      ${first.value && !rows.length && html`
        <div class="card"><${Empty} icon="list" title=${state ? `Nothing is ${state}` : "No requests yet"} text=${state ? "Choose All to see the others." : "Run something in the playground, or call the API: it appears here at once."}>
          ${!state && html`<a class="button main" href="/"><${Icon} name="play" />Open the playground</a>`}
        <//></div>`}
      ${rows.length > 0 && html`
        <div class="card scroll">
          <${Table} caption="Requests" keyOf=${(row) => row.id} rows=${rows} columns=${[
            { title: "Request", cell: (row) => html`<a href=${pathOf(row.id)}><code>${short(row.id)}</code></a>` },
            { title: "Status", cell: (row) => html`<${Status} status=${row.status} />${row.error ? html` <span class="muted small">${row.error.code}</span>` : ""}` },
            { title: "When", cell: (row) => html`<span class="nowrap">${when(row.created)}</span>` },
            { title: "Model", cell: (row) => row.model },
            ...(rows.some((row) => row.key_name) ? [{ title: "Key", cell: (row) => row.key_name ?? "" }] : []),
            { title: "Pictures", right: true, cell: (row) => row.pictures },
            { title: "Seconds", right: true, cell: (row) => row.seconds?.toFixed(1) ?? "" },
            { title: "Cost", right: true, cell: (row) => costOf(row) },
          ]} />
        </div>
      `}
      ${more.error && html`<${Problem} error=${more.error} onRetry=${load} />`}
      ${page?.has_more && html`<div class="row"><button type="button" class="button" disabled=${more.busy} onClick=${load}>Show older ones</button></div>`}
    </div>
  `;
}

const short = (id) => (id.length > 16 ? `${id.slice(0, 12)}…` : id);

export function Request({ id }) {
  const { value: row, error, reload } = useLoaded((signal) => call(`/v1/requests/${encodeURIComponent(id)}`, { signal }), [id]);
  if (error) return html`<div class="page"><h1>Request</h1><${Problem} error=${error} onRetry=${reload}><a class="button tiny" href="/requests">All requests</a><//></div>`;
  if (!row) return html`<div class="page"><${Bones} heights=${[50, 180, 240]} /></div>`;
  const attempts = row.attempts?.length ? row.attempts : (row.jobs ?? []);
  const notes = row.parameters ?? row.notes ?? row.plan?.parameters;
  const calls = row.calls ?? row.plan?.calls;
  return html`
    <div class="page">
      <div class="headline">
        <div><a class="small" href="/requests">All requests</a><h1 class="mono">${row.id}</h1></div>
        <div class="row"><${Status} status=${row.status} /><button type="button" class="button" onClick=${reload}><${Icon} name="again" />Refresh</button></div>
      </div>
      ${row.error && html`<${Problem} error=${row.error} />`}
      ${row.data?.length > 0
        ? html`<ul class="shots kept" aria-label="Pictures">${row.data.map((one) => html`<${Kept} key=${one.index} one=${one} />`)}</ul>`
        : row.pictures > 0 && html`<p class="muted">${count(row.pictures, "picture")} came of it. ${row.pictures === 1 ? "It is" : "They are"} not kept here any more, or went into the answer itself.</p>`}
      ${row.failed?.map((one) => html`<${Problem} error=${one} />`)}
      <section class="card panel" aria-label="Facts">
        <dl class="facts">
          <dt>When</dt><dd>${when(row.created)}</dd>
          <dt>Model</dt><dd><a href=${`/models/${row.model}`}>${row.model}</a> <code class="muted">${row.executed_model}</code></dd>
          ${row.key_name && html`<dt>Key</dt><dd>${row.key_name}</dd>`}
          <dt>Cost</dt><dd class="num">${costOf(row)}${row.cost_uncertain ? html` <span class="muted">a job has no price, or none is known yet</span>` : ""}</dd>
          ${row.reserved > 0 && html`<dt>Still running</dt><dd class="num">may cost ${money(row.reserved, row.cost_currency)} more</dd>`}
          ${row.seconds != null && html`<dt>Time</dt><dd class="num">${row.seconds.toFixed(2)} s</dd>`}
          ${row.idempotency_key && html`<dt>Idempotency-Key</dt><dd><code>${row.idempotency_key}</code></dd>`}
        </dl>
      </section>
      ${attempts.length > 0 && html`
        <h2>Jobs at the provider</h2>
        <div class="card scroll"><${Table} caption="Jobs at the provider" keyOf=${(job) => `${job.job}-${job.index ?? ""}`} rows=${attempts} columns=${[
          { title: "Job", cell: (job) => html`<code>${job.job ?? "no receipt"}</code>` },
          { title: "State", cell: (job) => job.state ?? job.fault ?? "done" },
          { title: "Endpoint", cell: (job) => html`<code>${job.provider}/${job.endpoint}</code>` },
          { title: "Picture", right: true, cell: (job) => (job.index === undefined ? "" : job.index + 1) },
          { title: "Cost", right: true, cell: (job) => (job.cost == null ? "not known" : money(job.cost, row.cost_currency)) },
        ]} /></div>
      `}
      ${notes?.length > 0 && html`<h2>What became of each parameter</h2><${Notes} notes=${notes} caption="What became of each parameter" />`}
      ${calls?.length > 0 && html`<h2>What the provider got</h2>${calls.map((payload, at) => html`<${Code} key=${at} label=${`Job ${at + 1}`} text=${JSON.stringify(payload, null, 2)} />`)}`}
    </div>
  `;
}

function Kept({ one }) {
  const [gone, setGone] = useState(false);
  const url = safeUrl(one.url);
  const [width, height] = (one.size ?? "").split("x").map(Number);
  return html`
    <li class="shot">
      ${gone || !url
        ? html`<div class="lost"><span>not kept any more</span></div>`
        : html`<a href=${url} target="_blank" rel="noopener"><img src=${url} width=${width || 300} height=${height || 300} loading="lazy" decoding="async" alt=${`Picture ${one.index + 1}`} onError=${() => setGone(true)} /></a>`}
      <footer><span>${one.index + 1}</span><span class="muted num">${one.size ?? ""}</span></footer>
    </li>
  `;
}
