// Input pictures: dropped, pasted or chosen; put in order; removed. Previews come from the browser's own memory.
import { html, useEffect, useRef, useState } from "./vendor/preact-htm.js";
import { Icon, announce } from "./parts.js";
import { bytes } from "./words.js";

let last = 0;

export function pictureOf(file) {
  last += 1;
  return { id: last, file, name: file.name || `pasted-${last}.png`, url: URL.createObjectURL(file) };
}

export const forget = (picture) => URL.revokeObjectURL(picture.url);

const filesOf = (transfer) => [...(transfer?.files ?? [])].filter((file) => file.type.startsWith("image/") || file.type === "");

/** `row` is the table's row for pictures; `most` how many the model takes; `sample` fetches the sample photo. */
export function Pictures({ row, pictures, most, onChange, onSample, error, children }) {
  const input = useRef(null);
  const list = useRef(null);
  const [over, setOver] = useState(null);
  const [dragging, setDragging] = useState(false);
  const add = (files) => {
    if (!files.length) return;
    onChange([...pictures, ...files.map(pictureOf)]);
    announce(`${files.length} added, ${pictures.length + files.length} in all.`);
  };
  useEffect(() => {
    let depth = 0;
    const has = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
    const handlers = {
      dragenter: (event) => has(event) && ((depth += 1), setDragging(true)),
      dragleave: (event) => has(event) && (depth -= 1) <= 0 && setDragging(false),
      dragover: (event) => has(event) && event.preventDefault(),
      drop: (event) => {
        if (!has(event)) return;
        event.preventDefault();
        depth = 0;
        setDragging(false);
        add(filesOf(event.dataTransfer));
      },
      paste: (event) => {
        const files = filesOf(event.clipboardData);
        if (!files.length) return;
        event.preventDefault();
        add(files);
      },
    };
    for (const [name, handler] of Object.entries(handlers)) addEventListener(name, handler);
    return () => Object.entries(handlers).forEach(([name, handler]) => removeEventListener(name, handler));
  }, [pictures]);
  const move = (from, to) => {
    if (to < 0 || to >= pictures.length || from === to) return;
    const next = [...pictures];
    next.splice(to, 0, ...next.splice(from, 1));
    onChange(next);
    announce(`${pictures[from].name} is picture ${to + 1} now.`);
  };
  const remove = (at) => {
    forget(pictures[at]);
    onChange(pictures.filter((_, index) => index !== at));
    announce(`${pictures[at].name} removed.`);
    (list.current?.querySelectorAll(".remove")[at ? at - 1 : 1] ?? input.current)?.focus();
  };
  const drop = (to) => (event) => {
    const from = Number(event.dataTransfer.getData("text/plain"));
    setOver(null);
    if ([...event.dataTransfer.types].includes("Files")) return;
    event.preventDefault();
    move(from, to);
  };
  const slim = pictures.length > 0;
  const chooser = html`
    <label class=${`drop ${dragging ? "over" : ""} ${slim ? "slim" : ""}`}>
      <input class="unseen" id=${`p-${row.name}`} ref=${input} type="file" accept="image/*" multiple=${most > 1} aria-describedby=${error ? "pictures-wrong" : undefined}
        onChange=${(event) => { add([...event.target.files]); event.target.value = ""; }} />
      <${Icon} name=${slim ? "add" : "picture"} />
      <b>${slim ? "Add another" : "Drop, paste or choose a picture"}</b>
      ${!slim && html`<span class="muted small">PNG, JPEG, WebP, GIF or AVIF</span>`}
    </label>
  `;
  return html`
    <div class="field" role="group" aria-labelledby="pictures-label">
      <div class="head"><span class="label" id="pictures-label">${most > 1 ? `Pictures, up to ${most}` : "Picture"}</span>${children}</div>
      ${slim && html`
        <ul class="thumbs" ref=${list}>
          ${pictures.map((picture, at) => html`
            <li key=${picture.id} class=${`thumb ${over === at ? "over" : ""}`} draggable=${pictures.length > 1}
              onDragStart=${(event) => event.dataTransfer.setData("text/plain", String(at))}
              onDragOver=${(event) => (event.preventDefault(), setOver(at))} onDragLeave=${() => setOver(null)} onDrop=${drop(at)}>
              <${Thumb} picture=${picture} number=${at + 1} />
              <p title=${picture.name}>${picture.name}</p>
              <div class="acts">
                ${pictures.length > 1 ? html`
                  <span class="row" style=${{ gap: 0 }}>
                    <button type="button" class="button quiet" disabled=${at === 0} aria-label=${`Move ${picture.name} forward`} onClick=${() => move(at, at - 1)}><${Icon} name="left" /></button>
                    <button type="button" class="button quiet" disabled=${at === pictures.length - 1} aria-label=${`Move ${picture.name} back`} onClick=${() => move(at, at + 1)}><${Icon} name="right" /></button>
                  </span>` : html`<span class="muted small" style=${{ padding: "3px 5px" }}>${bytes(picture.file.size)}</span>`}
                <button type="button" class="button quiet remove" aria-label=${`Remove ${picture.name}`} onClick=${() => remove(at)}><${Icon} name="cross" /></button>
              </div>
            </li>
          `)}
          ${pictures.length < most && html`<li key="add">${chooser}</li>`}
        </ul>
      `}
      ${!slim && chooser}
      ${!slim && html`<div><button type="button" class="button quiet tiny" onClick=${onSample}><${Icon} name="play" />Use the sample photo</button></div>`}
      ${error && html`<p class="wrong" id="pictures-wrong">${error}</p>`}
    </div>
    ${dragging && html`<div class="dropping">Drop to add</div>`}
  `;
}

function Thumb({ picture, number }) {
  const [broken, setBroken] = useState(false);
  if (broken) return html`<span class="noimg">no preview</span>`;
  return html`<img src=${picture.url} width="120" height="92" decoding="async" alt=${`Picture ${number}: ${picture.name}`} onError=${() => setBroken(true)} />`;
}
