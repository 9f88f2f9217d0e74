// The three languages as tabs.
import { html, useState } from "./vendor/preact-htm.js";
import { Code, Tabs } from "./parts.js";
import { ENV, samples } from "./samples.js";

export function CodeTabs({ request, name }) {
  const [chosen, choose] = useState("curl");
  const texts = samples(request);
  const titles = { curl: "curl", python: "Python", javascript: "JavaScript" };
  const tabs = Object.fromEntries(Object.keys(texts).map((id) => [id, [titles[id], html`<${Code} text=${texts[id]} label=${`${titles[id]} code`} />`]]));
  return html`
    <div class="stack">
      <${Tabs} tabs=${tabs} chosen=${chosen} onChoose=${choose} label="Language" name=${name} />
      <p class="muted small">
        ${request.edits && "Run it in the folder with the pictures. "}
        ${request.keyed && html`The key is read from the environment: <code>export ${ENV}=…</code> `}
        ${chosen !== "curl" && html`Needs OpenAI's SDK: <code>${chosen === "python" ? "pip install openai" : "npm install openai"}</code>`}
      </p>
    </div>
  `;
}
