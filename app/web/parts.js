// The pieces that pages are made of. Whatever they show is a text node: nothing here makes markup of a string.
import { html, useEffect, useRef, useState } from "./vendor/preact-htm.js";
import { session } from "./api.js";
import { HOW, adviceFor } from "./words.js";

const PATHS = {
  add: "M8 3v10M3 8h10",
  picture: "M2.5 3.5h11v9h-11zM2.5 10.5l3-3 2.5 2.5 2-2 3.5 3.5M10.5 6.2v.1",
  left: "M10 3.5 5.5 8l4.5 4.5",
  right: "M6 3.5 10.5 8 6 12.5",
  cross: "M4 4l8 8M12 4l-8 8",
  check: "M3.5 8.5l3 3 6-7",
  copy: "M5.5 5.5h7v7h-7zM3.5 10.5v-7h7",
  key: "M10.5 2.5a3 3 0 1 1-2.6 4.5L2.5 12.4v1.1h2v-1.5h1.5v-1.5h1.5",
  warn: "M8 2.5 14 13H2zM8 6.5v3M8 11.4v.1",
  info: "M8 2.5a5.5 5.5 0 1 0 0 11 5.5 5.5 0 0 0 0-11zM8 7.3v3.5M8 5.1v.1",
  download: "M8 2.5v8M4.5 7.5 8 11l3.5-3.5M3 13.5h10",
  again: "M13 8a5 5 0 1 1-1.6-3.7M13 2v3h-3",
  play: "M4.5 3 13 8l-8.5 5z",
  stop: "M4 4h8v8H4z",
  moon: "M12.8 9.6A5.3 5.3 0 0 1 6.4 3.2a5.3 5.3 0 1 0 6.4 6.4z",
  sun: "M8 5a3 3 0 1 1 0 6 3 3 0 0 1 0-6zM8 1v1.4M8 13.6V15M1 8h1.4M13.6 8H15M3 3l1 1M12 12l1 1M13 3l-1 1M4 12l-1 1",
  brush: "M13.5 2.5 7 9M7 9c-2-.5-3.5.5-3.5 2.5 0 1-.5 1.5-1.5 2 3 .5 6.5 0 6.5-2.5 0-1-.5-1.7-1.5-2z",
  list: "M5.5 4h8M5.5 8h8M5.5 12h8M2.5 4v.1M2.5 8v.1M2.5 12v.1",
  chart: "M2.5 13.5h11M4.5 11V8M8 11V4M11.5 11V6.5",
  dice: "M3 3h10v10H3zM5.8 5.8v.1M10.2 10.2v.1M8 8v.1",
  reply: "M6.5 4 3 7.5 6.5 11M3 7.5h6a4 4 0 0 1 4 4v1",
};

export const Icon = ({ name }) => html`<svg class="icon" viewBox="0 0 16 16" aria-hidden="true"><path d=${PATHS[name]} /></svg>`;

export const Badge = ({ how, text = how, title = HOW[how] }) => html`<span class=${`badge ${how}`} title=${title}>${text}</span>`;

/** Tell those who hear the page instead of seeing it. */
export function announce(text) {
  const place = document.getElementById("announce");
  if (place) place.textContent = text;
}

export function Problem({ error, onRetry, again = "Try again", children }) {
  const { title, next, action } = adviceFor(error.code);
  const calm = error.code === "cancelled";
  const asks = error.code === "invalid_api_key" && !session.get().key; // nobody has done anything wrong yet
  const wait = error.retryAfter ? ` The gateway asks to wait ${error.retryAfter} s.` : "";
  return html`
    <div class=${`notice ${calm ? "warn" : asks ? "" : "bad"}`} role="alert" data-code=${error.code}>
      <${Icon} name=${asks ? "key" : "warn"} />
      <div>
        <b>${title}</b>
        <span>${next}${wait}</span>
        ${!calm && !asks && error.message && html`<span class="muted small">${error.message}</span>`}
        ${!asks && error.requestId && html`<span class="muted small">Request <code>${error.requestId}</code></span>`}
        <span class="row">
          ${action === "key" && html`<button type="button" class=${`button tiny ${asks ? "main" : ""}`} onClick=${() => session.set({ asking: true })}><${Icon} name="key" />Enter an API key</button>`}
          ${onRetry && (action === "retry" || (action === "key" && !asks)) && html`<button type="button" class="button tiny" onClick=${onRetry}><${Icon} name="again" />${again}</button>`}
          ${children}
        </span>
      </div>
    </div>
  `;
}

export const Empty = ({ icon, title, text, children }) => html`
  <div class="empty">
    <${Icon} name=${icon} />
    <h2>${title}</h2>
    <p>${text}</p>
    ${children && html`<div class="row">${children}</div>`}
  </div>
`;

export const Bones = ({ heights = [56, 56, 56] }) => html`
  <div class="stack" aria-busy="true" aria-label="Loading">${heights.map((height) => html`<div class="bone" style=${{ height: `${height}px` }}></div>`)}</div>
`;

export function Copy({ text, label = "Copy" }) {
  const [done, setDone] = useState("");
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setDone("Copied");
    } catch {
      setDone("Select and copy by hand");
    }
    setTimeout(() => setDone(""), 2000);
  };
  return html`<button type="button" class="button tiny" onClick=${copy}><${Icon} name=${done === "Copied" ? "check" : "copy"} /><span aria-live="polite">${done || label}</span></button>`;
}

export const Code = ({ text, label }) => html`
  <div class="code"><${Copy} text=${text} /><pre tabindex="0" role="region" aria-label=${label}><code>${text}</code></pre></div>
`;

/** Tabs as the ARIA practices have them: arrows choose, one stop for the Tab key. `tabs`: {id: [title, content]}. */
export function Tabs({ tabs, chosen, onChoose, label, name }) {
  const bar = useRef(null);
  const ids = Object.keys(tabs);
  const move = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const to = event.key === "Home" ? 0 : event.key === "End" ? ids.length - 1 : step && (ids.indexOf(chosen) + step + ids.length) % ids.length;
    if (to === undefined) return;
    event.preventDefault();
    onChoose(ids[to]);
    bar.current.children[to].focus();
  };
  return html`
    <div class="tabs" role="tablist" aria-label=${label} ref=${bar} onKeyDown=${move}>
      ${ids.map((id) => html`
        <button type="button" role="tab" id=${`${name}-tab-${id}`} aria-selected=${String(id === chosen)} aria-controls=${`${name}-panel`} tabindex=${id === chosen ? 0 : -1} onClick=${() => onChoose(id)}>${tabs[id][0]}</button>
      `)}
    </div>
    <div class="stack" role="tabpanel" id=${`${name}-panel`} aria-labelledby=${`${name}-tab-${chosen}`}>${tabs[chosen][1]}</div>
  `;
}

/** A table that becomes cards where it has no room. `columns`: [{title, right, cell: row => …}]; the first names the row. */
export const Table = ({ columns, rows, caption, keyOf }) => html`
  <table class="cards" role="table">
    <caption class="unseen">${caption}</caption>
    <thead role="rowgroup"><tr role="row">${columns.map((column) => html`<th role="columnheader" scope="col" class=${column.right ? "right" : ""}>${column.title}</th>`)}</tr></thead>
    <tbody role="rowgroup">
      ${rows.map((row) => html`
        <tr role="row" key=${keyOf(row)}>
          ${columns.map((column, at) =>
            at === 0
              ? html`<th role="rowheader" scope="row">${column.cell(row)}</th>`
              : html`<td role="cell" class=${column.right ? "right num" : ""} data-label=${column.title}>${column.cell(row)}</td>`,
          )}
        </tr>
      `)}
    </tbody>
  </table>
`;

/** A modal dialog: the browser keeps the focus in it and gives it back. */
export function Dialog({ title, onClose, big, children }) {
  const box = useRef(null);
  useEffect(() => {
    if (!box.current.open) box.current.showModal();
  }, []);
  return html`
    <dialog ref=${box} class=${big ? "big" : ""} aria-labelledby="dialog-title" onClose=${onClose} onClick=${(event) => event.target === box.current && box.current.close()}>
      <div class="inside">
        <div class="row apart"><h2 id="dialog-title">${title}</h2><button type="button" class="button quiet square tiny" aria-label="Close" onClick=${() => box.current.close()}><${Icon} name="cross" /></button></div>
        ${children}
      </div>
    </dialog>
  `;
}

/** Load when shown, and again when `deps` or the key change. */
export function useLoaded(load, deps) {
  const [state, set] = useState({ value: null, error: null, busy: true });
  const [turn, setTurn] = useState(0);
  const key = useKey();
  useEffect(() => {
    const control = new AbortController();
    set((old) => ({ ...old, error: null, busy: true }));
    load(control.signal).then(
      (value) => !control.signal.aborted && set({ value, error: null, busy: false }),
      (error) => !control.signal.aborted && set({ value: null, error, busy: false }),
    );
    return () => control.abort();
  }, [...deps, key, turn]);
  return { ...state, reload: () => setTurn(turn + 1) };
}

function useKey() {
  const [key, set] = useState(session.get().key);
  useEffect(() => session.watch((value) => set(value.key)), []);
  return key;
}
