// What a run brings: the chosen picture under the slider, all of them as a grid, what it cost and what became of what.
import { html, useEffect, useState } from "./vendor/preact-htm.js";
import { Compare } from "./compare.js";
import { Empty, Icon, Problem } from "./parts.js";
import { pictureOf } from "./pictures.js";
import { Notes } from "./plan.js";
import { bytes, costOf, count } from "./words.js";

export function Result({ run, onReuse, onRetry }) {
  const [chosen, choose] = useState(0);
  useEffect(() => choose(0), [run?.id]);
  if (!run) {
    return html`<div class="stage"><${Empty} icon="picture" title="Your result appears here" text="Add a picture, say what to change, and run it. The price and the plan are shown before anything is bought." /></div>`;
  }
  const running = run.state === "running";
  const picture = run.pictures.find((one) => one.index === chosen) ?? run.pictures[0];
  const shape = run.shape?.replace("x", " / ") ?? "1 / 1";
  const slots = Array.from({ length: Math.max(run.expected, 1) }, (_, index) => index);
  const [width, height] = (run.shape ?? "").split("x").map(Number);
  return html`
    ${run.error && html`<${Problem} error=${run.error} onRetry=${onRetry} again="Run again">${run.request && html`<a class="button tiny" href=${`/requests/${encodeURIComponent(run.request)}`}>Open in the request log</a>`}<//>`}
    ${(running || picture || !run.error) && html`
      <div class=${`stage ${picture ? "full" : ""}`}>
        ${picture
          ? html`<${Compare} before=${run.before} after=${picture.url} alt=${`Result ${picture.index + 1}`} size=${picture.size ?? run.shape} />`
          : running
            ? html`<${Waiting} run=${run} />`
            : html`<${Empty} icon="picture" title="No picture came of it" text="What went wrong is said below." />`}
      </div>
    `}
    ${picture && html`
      <div class="row apart">
        <div class="row">
          <a class="button" href=${picture.url} download=${nameOf(run, picture)} target=${picture.blob ? undefined : "_blank"} rel="noopener"><${Icon} name="download" />Download</a>
          ${picture.blob && html`<button type="button" class="button" onClick=${() => onReuse(pictureOf(new File([picture.blob], nameOf(run, picture), { type: picture.blob.type })))}><${Icon} name="reply" />Edit this one</button>`}
        </div>
        <span class="muted small num">${[picture.size?.replace("x", " × "), picture.format, picture.blob && bytes(picture.blob.size)].filter(Boolean).join(" · ")}</span>
      </div>
    `}
    ${run.expected > 1 && (running || run.pictures.length > 0) && html`
      <ul class="shots" aria-label="All results">
        ${slots.map((index) => html`<${Shot} key=${index} index=${index} run=${run} shape=${shape} width=${width} height=${height} chosen=${picture?.index === index} onChoose=${() => choose(index)} />`)}
      </ul>
    `}
    ${run.expected === 1 && run.failed.map((one) => html`<${Problem} error=${one} />`)}
    ${running && picture && html`<p class="muted small num"><${Elapsed} run=${run} /> · ${run.pictures.length} of ${run.expected} done</p>`}
    ${!running && run.metadata && html`<${Facts} run=${run} />`}
  `;
}

const nameOf = (run, picture) => `imagegate-${(run.request ?? "result").slice(-8)}-${picture.index + 1}.${picture.format}`;

function Shot({ index, run, shape, width, height, chosen, onChoose }) {
  const picture = run.pictures.find((one) => one.index === index);
  const lost = run.failed.find((one) => one.index === index);
  const style = { "--shape": shape };
  if (picture) {
    return html`
      <li class=${`shot ${chosen ? "on" : ""}`} style=${style}>
        <button type="button" class="view" aria-pressed=${String(chosen)} aria-label=${`Show result ${index + 1}`} onClick=${onChoose}><img src=${picture.url} alt="" width=${width || undefined} height=${height || undefined} decoding="async" /></button>
        <footer><span>${index + 1}</span><a class="button quiet tiny square" aria-label=${`Download result ${index + 1}`} href=${picture.url} download=${nameOf(run, picture)}><${Icon} name="download" /></a></footer>
      </li>
    `;
  }
  return html`
    <li class="shot" style=${style}>
      ${lost
        ? html`<div class="lost"><b>Failed</b><span>${lost.message}</span></div>`
        : run.state === "running"
          ? html`<div class="wait bone" role="img" aria-label=${`Result ${index + 1} is being made`}></div>`
          : html`<div class="lost"><span>not made</span></div>`}
      <footer><span>${index + 1}</span><span class="muted">${lost ? (lost.charged ? "charged" : lost.charged === false ? "not charged" : "charge unknown") : ""}</span></footer>
    </li>
  `;
}

function Waiting({ run }) {
  return html`
    <div class="progress">
      <b><${Elapsed} run=${run} /></b>
      <div class="rail" role="progressbar" aria-label="Running"><i></i></div>
      <p class="muted">Making ${count(run.expected, "picture")}${run.shape ? ` of ${run.shape.replace("x", " × ")}` : ""}. Cancel stops the job at the provider, too.</p>
    </div>
  `;
}

function Elapsed({ run }) {
  const [, tick] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => tick((old) => old + 1), 100);
    return () => clearInterval(timer);
  }, []);
  return html`${((performance.now() - run.began) / 1000).toFixed(1)} s`;
}

function Facts({ run }) {
  const { metadata } = run;
  return html`
    <div class="card panel">
      <dl class="facts">
        <dt>Cost</dt><dd class="num">${costOf(metadata)}${metadata.cost_uncertain ? html` <span class="muted">a job has no price, or none is known yet</span>` : ""}${run.sandbox ? html` <span class="muted">${metadata.cost_uncertain ? "" : "at the provider"}; the sandbox bills nothing</span>` : ""}</dd>
        <dt>Time</dt><dd class="num">${run.seconds?.toFixed(1)} s</dd>
        <dt>Made by</dt><dd>${metadata.provider_name} <code class="muted">${metadata.executed_model}</code></dd>
        ${metadata.seed !== undefined && html`<dt>Seed</dt><dd class="num">${(metadata.seeds ?? [metadata.seed]).join(", ")}</dd>`}
        ${run.pictures.filter((one) => one.revised).map((one) => html`<dt>Prompt, reworded</dt><dd>${one.revised}</dd>`)}
        ${run.request && html`<dt>Request</dt><dd><a href=${`/requests/${encodeURIComponent(run.request)}`}><code>${run.request}</code></a></dd>`}
      </dl>
    </div>
    <details>
      <summary>What became of each parameter</summary>
      <${Notes} notes=${metadata.parameters} caption="What became of each parameter" />
    </details>
  `;
}
