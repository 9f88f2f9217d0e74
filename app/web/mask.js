// A mask, drawn with a brush: what is painted becomes transparent, which is OpenAI's word for "edit here".
import { html, useEffect, useRef, useState } from "./vendor/preact-htm.js";
import { Dialog, Icon, announce } from "./parts.js";
import { pictureOf } from "./pictures.js";

const PAINT = "#0fb98c";

/** `picture` is what is painted over; `onDone` gets the mask as a picture of its own. */
export function MaskEditor({ picture, onDone, onClose }) {
  const canvas = useRef(null);
  const cursor = useRef(null);
  const [size, setSize] = useState(null);
  const [brush, setBrush] = useState(8); // percent of the longer side
  const [touched, setTouched] = useState(false);
  const [busy, setBusy] = useState(false);
  const pen = useRef({ x: 0.5, y: 0.5, down: false, erase: false });
  const [erase, setErase] = useState(false);
  pen.current.erase = erase;

  const radius = () => (Math.max(size.width, size.height) * brush) / 200;
  const stroke = (from, to) => {
    const context = canvas.current.getContext("2d");
    context.globalCompositeOperation = pen.current.erase ? "destination-out" : "source-over";
    context.strokeStyle = PAINT;
    context.lineWidth = radius() * 2;
    context.lineCap = "round";
    context.beginPath();
    context.moveTo(from.x * size.width, from.y * size.height);
    context.lineTo(to.x * size.width + 0.01, to.y * size.height);
    context.stroke();
    setTouched(true);
  };
  const show = () => {
    const box = canvas.current?.getBoundingClientRect();
    if (!box || !size || !cursor.current) return;
    const wide = (radius() * 2 * box.width) / size.width;
    Object.assign(cursor.current.style, { left: `${pen.current.x * 100}%`, top: `${pen.current.y * 100}%`, width: `${wide}px`, height: `${wide}px` });
  };
  useEffect(show, [brush, size]);
  const place = (event) => {
    const box = canvas.current.getBoundingClientRect();
    return { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
  };
  const point = (event) => {
    const to = place(event);
    if (pen.current.down) stroke(pen.current, to);
    Object.assign(pen.current, to);
    show();
  };
  const press = (event) => {
    event.preventDefault();
    canvas.current.focus();
    canvas.current.setPointerCapture(event.pointerId);
    Object.assign(pen.current, place(event), { down: true });
    stroke(pen.current, pen.current);
    show();
  };
  const keys = (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (step) {
      event.preventDefault();
      const length = radius() / 2;
      const to = { x: Math.min(1, Math.max(0, pen.current.x + (step[0] * length) / size.width)), y: Math.min(1, Math.max(0, pen.current.y + (step[1] * length) / size.height)) };
      if (event.shiftKey) stroke(pen.current, to);
      Object.assign(pen.current, to);
      show();
    } else if (event.key === " ") {
      event.preventDefault();
      stroke(pen.current, pen.current);
    }
  };
  const clear = () => {
    canvas.current.getContext("2d").clearRect(0, 0, size.width, size.height);
    setTouched(false);
  };
  const save = async () => {
    setBusy(true);
    const mask = document.createElement("canvas");
    Object.assign(mask, size);
    const context = mask.getContext("2d");
    context.fillStyle = "#000";
    context.fillRect(0, 0, size.width, size.height);
    context.globalCompositeOperation = "destination-out";
    context.drawImage(canvas.current, 0, 0);
    const blob = await new Promise((resolve) => mask.toBlob(resolve, "image/png"));
    onDone(pictureOf(new File([blob], "mask.png", { type: "image/png" })));
    announce("The mask is set.");
  };
  const loaded = (event) => setSize({ width: event.target.naturalWidth, height: event.target.naturalHeight });
  return html`
    <${Dialog} title="Paint what may change" big=${true} onClose=${onClose}>
      <p class="muted small" id="brush-hint">Only what you paint is edited; the rest keeps its very pixels. With the keyboard: arrows move the brush, Space paints, Shift with arrows paints a line.</p>
      <div class="brush">
        <div class="layers">
          <img src=${picture.url} alt="The picture to mask" onLoad=${loaded} />
          ${size && html`
            <canvas ref=${canvas} width=${size.width} height=${size.height} tabindex="0" role="application" aria-label="Mask" aria-describedby="brush-hint"
              onPointerDown=${press} onPointerMove=${point} onPointerUp=${() => { pen.current.down = false; }} onPointerCancel=${() => { pen.current.down = false; }} onKeyDown=${keys}></canvas>
            <span class="cursor" ref=${cursor}></span>
          `}
        </div>
      </div>
      <div class="row apart">
        <label class="row small" style=${{ flex: "1 1 200px", flexWrap: "nowrap" }}>Brush <input type="range" min="1" max="40" value=${brush} onInput=${(event) => setBrush(Number(event.target.value))} /></label>
        <label class="tick"><input type="checkbox" checked=${erase} onChange=${(event) => setErase(event.target.checked)} /><span>Erase</span></label>
        <button type="button" class="button" disabled=${!touched} onClick=${clear}>Clear</button>
        <button type="button" class="button main" disabled=${!touched || busy} onClick=${save}><${Icon} name="check" />Use this mask</button>
      </div>
    <//>
  `;
}

/** The field of a row that takes one picture: painted over the first input, or a file. */
export function MaskField({ row, mask, picture, onChange, error }) {
  const [open, setOpen] = useState(false);
  const choose = (event) => {
    if (event.target.files.length) onChange(pictureOf(event.target.files[0]));
    event.target.value = "";
  };
  return html`
    <div class="field wide" role="group" aria-label=${row.name}>
      <div class="row">
        ${mask && html`<img src=${mask.url} width="44" height="44" alt=${`${row.name}: ${mask.name}`} style=${{ objectFit: "cover", borderRadius: "8px", background: "#fff" }} />`}
        ${picture && row.name === "mask" && html`<button type="button" class="button tiny" onClick=${() => setOpen(true)}><${Icon} name="brush" />${mask ? "Paint anew" : `Paint a ${row.name}`}</button>`}
        <label class="button tiny quiet"><input id=${`p-${row.name}`} type="file" accept="image/*" class="unseen" onChange=${choose} />${mask ? "Another file" : `${row.name} from a file`}</label>
        ${mask && html`<button type="button" class="button tiny quiet" onClick=${() => onChange(null)}><${Icon} name="cross" />Remove the ${row.name}</button>`}
      </div>
      ${error && html`<p class="wrong">${error}</p>`}
      ${open && html`<${MaskEditor} picture=${picture} onClose=${() => setOpen(false)} onDone=${(made) => { onChange(made); setOpen(false); }} />`}
    </div>
  `;
}
