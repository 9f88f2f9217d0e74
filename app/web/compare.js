// Before and after under one slider: a range input over both, so that keys, screen readers and fingers work it alike.
import { html, useEffect, useRef, useState } from "./vendor/preact-htm.js";

/** `size` is "WxH" of the picture after, which gives the box its shape. */
export function Compare({ before, after, alt, size }) {
  const box = useRef(null);
  const [at, setAt] = useState(50);
  useEffect(() => box.current.style.setProperty("--at", `${at}%`), [at, before]);
  const [width, height] = (size ?? "").split("x").map(Number);
  return html`
    <div style=${{ "--ratio": width && height ? String(width / height) : "1.5" }} class=${`compare ${before ? "both" : ""}`} ref=${box}>
      <img class="after" src=${after} alt=${alt} decoding="async" />
      ${before && html`
        <img class="before" src=${before} alt="The picture before" decoding="async" />
        <input type="range" min="0" max="100" value=${at} aria-label="Before and after" aria-valuetext=${`${at} percent before, ${100 - at} percent after`} onInput=${(event) => setAt(Number(event.target.value))} />
        <span class="line"></span>
        ${at > 12 && html`<span class="tag one">Before</span>`}
        ${at < 88 && html`<span class="tag two">After</span>`}
      `}
    </div>
  `;
}
