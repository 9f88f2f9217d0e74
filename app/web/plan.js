// "What will be sent": a dry run's answer, laid out. Nothing here is worked out by the page.
import { html } from "./vendor/preact-htm.js";
import { Badge, Code, Table } from "./parts.js";
import { count, money } from "./words.js";

export const microsOf = (estimate) => (estimate.total_cost_micros === null ? null : estimate.total_cost_micros / 1e6);

export function Notes({ notes, caption }) {
  return html`<div class="card scroll"><${Table} caption=${caption} keyOf=${(note) => note.name} rows=${notes} columns=${[
    { title: "Parameter", cell: (note) => html`<code>${note.name}</code>` },
    { title: "Becomes", cell: (note) => html`<${Badge} how=${note.how} />` },
    { title: "Sent as", cell: (note) => (note.sent_as ? html`<code>${note.sent_as}</code>` : "") },
    { title: "Why", cell: (note) => note.why },
  ]} /></div>`;
}

export function Plan({ estimate }) {
  const { plan } = estimate;
  const { delivery } = plan;
  const after = [
    delivery.size && `fitted to exactly ${delivery.size}`,
    delivery.mask && "laid over the original through the mask",
    delivery.output_format && `delivered as ${delivery.output_format}${delivery.output_compression === null ? "" : ` of quality ${delivery.output_compression}`}`,
  ].filter(Boolean);
  return html`
    <div class="card panel">
      <dl class="facts">
        <dt>Provider</dt><dd>${estimate.provider_name} <code class="muted">${plan.endpoint}</code></dd>
        <dt>Jobs</dt><dd>${count(plan.calls.length, "job")} for ${count(delivery.count, "picture")}</dd>
        <dt>Size made</dt><dd>${plan.size ?? "as the provider chooses"}</dd>
        <dt>Then, here</dt><dd>${after.length ? after.join(", ") : "nothing: handed on as made"}</dd>
        ${estimate.components.map((part) => html`
          <dt>Price</dt>
          <dd class="num">${part.total_cost === null ? "unknown" : part.unit_price === null ? html`<b>${money(part.total_cost / 1e6, estimate.currency)}</b> for ${part.billable_quantity} ${part.metric}s` : html`${part.billable_quantity ?? "?"} × ${money(part.unit_price, estimate.currency)} a ${part.metric} = <b>${money(part.total_cost / 1e6, estimate.currency)}</b>`}</dd>
        `)}
      </dl>
    </div>
    <h2>What becomes of each parameter</h2>
    <${Notes} notes=${plan.parameters} caption="What becomes of each parameter" />
    <h2>What the provider gets</h2>
    ${plan.calls.map((payload, at) => {
      const code = html`<${Code} label=${`Job ${at + 1}`} text=${JSON.stringify(payload, null, 2)} />`;
      return at === 0 ? code : html`<details key=${at}><summary>Job ${at + 1}</summary>${code}</details>`;
    })}
  `;
}
