// Bars, drawn as SVG by hand. Each chart stands beside a table with the same numbers: it is a picture of it.
import { html, useEffect, useState } from "./vendor/preact-htm.js";

const WIDE = 720;
const NARROW = 320; // on a phone, so that words keep their size
const HEIGHT = 200;
const LEFT = 52;
const BOTTOM = 24;

/** The next round number above, so that the grid has whole steps. */
function roof(value) {
  const scale = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 5, 8, 10].map((step) => step * scale).find((step) => step >= value - 1e-12);
}

function useMedia(query) {
  const [matches, set] = useState(() => matchMedia(query).matches);
  useEffect(() => {
    const media = matchMedia(query);
    const follow = () => set(media.matches);
    media.addEventListener("change", follow);
    return () => media.removeEventListener("change", follow);
  }, [query]);
  return matches;
}

/** `bars`: [{label, value}], from left to right; `format` writes a value. */
export function Bars({ bars, format, title }) {
  const top = roof(Math.max(...bars.map((bar) => bar.value), 1e-6));
  const narrow = useMedia("(max-width: 720px)");
  const width = narrow ? NARROW : WIDE;
  const room = (width - LEFT) / bars.length;
  const wide = Math.max(2, Math.min(34, room * 0.66));
  const y = (value) => (HEIGHT - BOTTOM) * (1 - value / top) + 8 * (value / top);
  const every = Math.ceil(bars.length / (narrow ? 4 : 8));
  return html`
    <svg class="chart" viewBox=${`0 0 ${width} ${HEIGHT}`} width=${width} height=${HEIGHT} role="img" aria-label=${`${title}; the table has the numbers`}>
      ${[0, 0.5, 1].map((part) => html`
        <line class="grid" x1=${LEFT} x2=${width} y1=${y(top * part)} y2=${y(top * part)} />
        <text x=${LEFT - 8} y=${y(top * part) + 4} text-anchor="end">${format(top * part)}</text>
      `)}
      ${bars.map((bar, at) => {
        const x = LEFT + room * (at + 0.5);
        return html`
          <rect class="bar" x=${x - wide / 2} y=${y(bar.value)} width=${wide} height=${Math.max(0, HEIGHT - BOTTOM - y(bar.value))} rx="2"><title>${`${bar.label}: ${format(bar.value)}`}</title></rect>
          ${at % every === 0 && html`<text x=${x} y=${HEIGHT - 6} text-anchor="middle">${bar.label}</text>`}
        `;
      })}
    </svg>
  `;
}

export function Meter({ value, most, label }) {
  const part = most ? Math.min(1, value / most) : 0;
  return html`<div class=${`meter ${part >= 1 ? "full" : ""}`} role="meter" aria-label=${label} aria-valuemin="0" aria-valuemax="100" aria-valuenow=${Math.round(part * 100)}><i style=${{ width: `${part * 100}%` }}></i></div>`;
}
