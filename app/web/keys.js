// API keys, for the admin: make, limit, rotate, revoke. A key itself is shown once.
import { html, useState } from "./vendor/preact-htm.js";
import { call, session } from "./api.js";
import { Meter } from "./charts.js";
import { Bones, Copy, Dialog, Empty, Icon, Problem, Table, announce, useLoaded } from "./parts.js";
import { count, money, when } from "./words.js";

// name -> [label, type, hint]; the names are the API's.
const LIMITS = {
  budget_day: ["Budget a day", "money", "US dollars"],
  budget_month: ["Budget a month", "money", "US dollars"],
  budget_total: ["Budget in all", "money", "US dollars"],
  requests_per_minute: ["Requests a minute", "count", ""],
  images_per_minute: ["Pictures a minute", "count", ""],
  concurrent_jobs: ["Jobs at once", "count", ""],
};

export function Keys() {
  const { value, error, reload, busy } = useLoaded((signal) => call("/v1/keys", { signal }), []);
  const [dialog, open] = useState(null);
  const absent = error && (error.status === 404 || error.status === 405);
  const close = () => open(null);
  const done = (made) => {
    reload();
    open(made?.key ? { kind: "shown", key: made } : null);
  };
  return html`
    <div class="page">
      <div class="headline">
        <div><h1>Keys</h1><p class="muted">Who may call this gateway, and how much they may spend.</p></div>
        ${value && html`<button type="button" class="button main" onClick=${() => open({ kind: "edit", key: null })}><${Icon} name="add" />New key</button>`}
      </div>
      ${absent && html`<div class="card"><${Empty} icon="key" title="Not available on this gateway" text="Managed keys are not switched on here. Set IMAGEGATE_ADMIN_KEY and start the gateway again; until then the one static key (IMAGEGATE_API_KEY) is all there is." /></div>`}
      ${error && !absent && (error.status === 401 || error.status === 403
        ? html`<div class="card"><${Empty} icon="key" title="These are the admin's" text="Enter the admin key to see and make keys. It is what the gateway was started with as IMAGEGATE_ADMIN_KEY; if that was nothing, set it and start again, or use imagegate keys on the gateway's machine."><button type="button" class="button main" onClick=${() => session.set({ asking: true })}><${Icon} name="key" />Enter the admin key</button><//></div>`
        : html`<${Problem} error=${error} onRetry=${reload} />`)}
      ${busy && !value && html`<${Bones} heights=${[50, 50, 50]} />`}
      ${value && !value.data.length && html`<div class="card"><${Empty} icon="key" title="No keys yet" text="Make one for each person or program: each has its own budget, limits and log." ><button type="button" class="button main" onClick=${() => open({ kind: "edit", key: null })}><${Icon} name="add" />Make the first key</button><//></div>`}
      ${value?.data.length > 0 && html`
        <div class="card scroll">
          <${Table} caption="Keys" keyOf=${(key) => key.id} rows=${value.data} columns=${[
            { title: "Name", cell: (key) => html`<b>${key.name}</b><br /><code class="muted">${key.prefix}…${key.last4}</code>` },
            { title: "State", cell: (key) => html`<${State} value=${key} />` },
            { title: "Spent", cell: (key) => html`<${Spent} value=${key} />` },
            { title: "Limits", cell: (key) => html`<span class="small">${limitsOf(key) || html`<span class="muted">${budgeted(key) ? "the budget" : "none"}</span>`}</span>` },
            { title: "Made", cell: (key) => html`<span class="small">${when(key.created)}</span>` },
            { title: "Change", cell: (key) => !key.revoked && html`
              <span class="row acts">
                <button type="button" class="button tiny" aria-label=${`Change the limits of ${key.name}`} onClick=${() => open({ kind: "edit", key })}>Limits</button>
                <button type="button" class="button tiny" aria-label=${`Rotate ${key.name}`} onClick=${() => open({ kind: "rotate", key })}>Rotate</button>
                <button type="button" class="button tiny danger" aria-label=${`Revoke ${key.name}`} onClick=${() => open({ kind: "revoke", key })}>Revoke</button>
              </span>` },
          ]} />
        </div>
      `}
      ${dialog?.kind === "edit" && html`<${Edit} value=${dialog.key} onClose=${close} onDone=${done} />`}
      ${dialog?.kind === "shown" && html`<${Shown} value=${dialog.key} onClose=${close} />`}
      ${dialog?.kind === "rotate" && html`<${Sure} title=${`Rotate ${dialog.key.name}?`} text="It gets a new key, which is shown once. The old one stops working." word="Rotate" onClose=${close} act=${() => call(`${pathOf(dialog.key)}/rotate`, { method: "POST", body: {} })} onDone=${done} />`}
      ${dialog?.kind === "revoke" && html`<${Sure} title=${`Revoke ${dialog.key.name}?`} text="Whoever uses it is locked out at once, for good. Its log and its costs stay." word="Revoke" onClose=${close} act=${() => call(pathOf(dialog.key), { method: "DELETE" })} onDone=${() => done(null)} />`}
    </div>
  `;
}

const pathOf = (key) => `/v1/keys/${encodeURIComponent(key.id)}`;

function State({ value }) {
  const expired = value.expires && value.expires * 1000 < Date.now();
  const state = value.revoked ? "revoked" : expired ? "expired" : "live";
  return html`<span class=${`badge ${state}`}>${state}</span>${!value.revoked && value.expires ? html`<br /><span class="muted small">${expired ? "since" : "until"} ${when(value.expires)}</span>` : ""}`;
}

function Spent({ value }) {
  const { limits = {}, spent = {} } = value;
  const lines = [["day", "today"], ["month", "this month"], ["total", "in all"]].filter(([name]) => limits[`budget_${name}`] != null || name === "total");
  return html`<div class="stack num small" style=${{ gap: "5px", minWidth: "130px" }}>
    ${lines.map(([name, words]) => {
      const most = limits[`budget_${name}`];
      return html`<div key=${name}>${money(spent[name] ?? 0)}${most != null ? ` of ${money(most)}` : ""} <span class="muted">${words}</span>${most != null && html`<${Meter} value=${spent[name] ?? 0} most=${most} label=${`Spent ${words}`} />`}</div>`;
    })}
  </div>`;
}

const budgeted = ({ limits = {} }) => ["day", "month", "total"].some((name) => limits[`budget_${name}`] != null);

function limitsOf({ limits = {} }) {
  const words = [
    limits.requests_per_minute && `${count(limits.requests_per_minute, "request")} a minute`,
    limits.images_per_minute && `${count(limits.images_per_minute, "picture")} a minute`,
    limits.concurrent_jobs && `${count(limits.concurrent_jobs, "job")} at once`,
    limits.models?.length && `only ${limits.models.join(", ")}`,
    limits.response_format && `answers ${limits.response_format}`,
    limits.strict && "strict",
  ];
  return words.filter(Boolean).join("; ");
}

function Edit({ value, onClose, onDone }) {
  const old = value?.limits ?? {};
  const [fields, setFields] = useState(() => ({
    name: value?.name ?? "",
    ...Object.fromEntries(Object.keys(LIMITS).map((name) => [name, old[name] == null ? "" : String(old[name])])),
    models: (old.models ?? []).join(", "),
    response_format: old.response_format ?? "",
    strict: Boolean(old.strict),
    days: "",
  }));
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  const set = (name) => (event) => setFields({ ...fields, [name]: event.target.type === "checkbox" ? event.target.checked : event.target.value });
  const save = async (event) => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    const models = fields.models.split(",").map((one) => one.trim()).filter(Boolean);
    const wanted = {
      name: fields.name.trim(),
      ...Object.fromEntries(Object.keys(LIMITS).map((name) => [name, fields[name].trim() === "" ? null : Number(fields[name])])),
      models: models.length ? models : null,
      response_format: fields.response_format || null,
      strict: fields.strict || null,
    };
    // A new key names what it has; a change names what changes, and null takes a limit away.
    const before = { name: value?.name, ...old };
    const same = (name) => JSON.stringify(before[name] ?? null) === JSON.stringify(wanted[name]) || (!before[name] && wanted[name] === null);
    const body = Object.fromEntries(Object.entries(wanted).filter(([name, one]) => (value ? !same(name) : one !== null)));
    if (fields.days.trim() !== "") body.expires_in = Number(fields.days) * 86_400;
    try {
      const made = await call(value ? pathOf(value) : "/v1/keys", { method: value ? "PATCH" : "POST", body });
      announce(value ? "The limits are changed." : "The key is made.");
      onDone(made);
    } catch (problem) {
      setError(problem);
      setBusy(false);
    }
  };
  const field = (name, label, hint, more) => html`
    <div class="field"><label for=${`k-${name}`}>${label}</label><input id=${`k-${name}`} class="input num" value=${fields[name]} onInput=${set(name)} aria-invalid=${error?.param === name ? "true" : undefined} ...${more} />${hint && html`<p class="hint">${hint}</p>`}</div>
  `;
  return html`
    <${Dialog} title=${value ? `Limits of ${value.name}` : "New key"} onClose=${onClose}>
      <form class="stack" onSubmit=${save}>
        ${field("name", "Name", "Whose it is: a person or a program.", { required: true, maxlength: 100, autocomplete: "off" })}
        <div class="pair">${Object.entries(LIMITS).map(([name, [label, type, hint]]) => field(name, label, hint, { type: "number", min: 0, step: type === "money" ? "any" : 1, placeholder: "no limit" }))}</div>
        ${field("models", "Models", "Ids, separated by commas; empty: all.", { autocomplete: "off", spellcheck: false })}
        <div class="pair">
          <div class="field"><label for="k-format">Answers by default</label><select id="k-format" class="input" value=${fields.response_format} onChange=${set("response_format")}><option value="">its default</option><option value="url">url</option><option value="b64_json">b64_json</option></select></div>
          ${field("days", "Expires in days", value ? "Empty: as it is." : "Empty: never.", { type: "number", min: 1, step: "any" })}
        </div>
        <label class="tick"><input type="checkbox" checked=${fields.strict} onChange=${set("strict")} /><span>Strict: refuse unknown parameters</span></label>
        ${error && html`<${Problem} error=${error} />`}
        <div class="row"><button type="submit" class="button main" disabled=${busy}>${value ? "Save" : "Make the key"}</button></div>
      </form>
    <//>
  `;
}

const Shown = ({ value, onClose }) => html`
  <${Dialog} title=${`The key of ${value.name}`} onClose=${onClose}>
    <div class="notice warn"><${Icon} name="warn" /><div><b>Copy it now</b><span>It is stored as a hash alone: nobody can show it again.</span></div></div>
    <div class="code"><pre tabindex="0" role="region" aria-label="The key"><code style=${{ whiteSpace: "pre-wrap" }}>${value.key}</code></pre></div>
    <div class="row"><${Copy} text=${value.key} label="Copy the key" /></div>
  <//>
`;

function Sure({ title, text, word, act, onClose, onDone }) {
  const [state, set] = useState({ busy: false, error: null });
  const go = async () => {
    set({ busy: true, error: null });
    try {
      onDone(await act());
    } catch (error) {
      set({ busy: false, error });
    }
  };
  return html`
    <${Dialog} title=${title} onClose=${onClose}>
      <p>${text}</p>
      ${state.error && html`<${Problem} error=${state.error} />`}
      <div class="row"><button type="button" class="button main" disabled=${state.busy} onClick=${go}>${word}</button><button type="button" class="button" onClick=${onClose}>Keep it as it is</button></div>
    <//>
  `;
}
