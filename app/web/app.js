// Routes, the key dialog, the theme. Pages change without a reload: an API key in memory survives the way.
import { html, render, useEffect, useState } from "./vendor/preact-htm.js";
import { session, setKey } from "./api.js";
import { Keys } from "./keys.js";
import { Model, Models } from "./models.js";
import { Dialog, Empty, Icon, announce } from "./parts.js";
import { Playground } from "./playground.js";
import { Request, Requests } from "./requests.js";
import { useStore } from "./store.js";
import { Usage } from "./usage.js";

const ROUTES = [
  [/^\/$/, "Playground", Playground],
  [/^\/models\/?$/, "Models", Models],
  [/^\/models\/(.+?)\/?$/, "Model", Model],
  [/^\/requests\/?$/, "Requests", Requests],
  [/^\/requests\/([^/]+)\/?$/, "Request", Request],
  [/^\/usage\/?$/, "Usage", Usage],
  [/^\/keys\/?$/, "Keys", Keys],
];

function route() {
  for (const [pattern, title, Page] of ROUTES) {
    const match = pattern.exec(location.pathname);
    if (match) return { title, Page, id: match[1] === undefined ? undefined : decoded(match[1]), place: location.pathname + location.search };
  }
  return { title: "Not found", Page: Nowhere, place: location.pathname };
}

function Nowhere() {
  return html`
    <div class="page">
      <div class="headline"><div><h1>There is no such page</h1><p class="muted mono">${location.pathname.slice(0, 200)}</p></div></div>
      <div class="card"><${Empty} icon="picture" title="Nothing is here" text="The address may be mistyped, or what it led to is gone."><a class="button main" href="/"><${Icon} name="play" />Open the playground</a><//></div>
    </div>
  `;
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function App() {
  const [here, setHere] = useState(route);
  useEffect(() => {
    const go = () => setHere(route());
    const click = (event) => {
      const link = event.target.closest?.("a[href]");
      if (!link || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
      if (link.target || link.hasAttribute("download") || link.origin !== location.origin || link.getAttribute("href").startsWith("#")) return;
      if (!ROUTES.some(([pattern]) => pattern.test(link.pathname))) return;
      event.preventDefault();
      if (link.href !== location.href) history.pushState(null, "", link.href);
      go();
      scrollTo(0, 0);
      document.getElementById("main").focus({ preventScroll: true });
    };
    document.addEventListener("click", click);
    addEventListener("popstate", go);
    return () => {
      document.removeEventListener("click", click);
      removeEventListener("popstate", go);
    };
  }, []);
  useEffect(() => {
    document.title = `${here.title} · imagegate`;
    for (const link of document.querySelectorAll(".pages a")) {
      const path = link.getAttribute("href");
      const current = path === "/" ? location.pathname === "/" : location.pathname.startsWith(path);
      if (current) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
  }, [here]);
  const { asking } = useStore(session);
  return html`
    <${here.Page} key=${here.place} id=${here.id} />
    ${asking && html`<${KeyDialog} />`}
  `;
}

function KeyDialog() {
  const { key, keep } = session.get();
  const [text, setText] = useState(key);
  const [tab, setTab] = useState(keep);
  const save = (event) => {
    event.preventDefault();
    setKey(text.trim(), tab);
    announce(text.trim() ? "The key is set." : "The key is forgotten.");
  };
  return html`
    <${Dialog} title="API key" onClose=${() => session.set({ asking: false })}>
      <form class="stack" onSubmit=${save}>
        <div class="field">
          <label for="api-key">Key for this gateway</label>
          <input id="api-key" class="input mono" type="password" autocomplete="off" spellcheck=${false} value=${text} onInput=${(event) => setText(event.target.value)} aria-describedby="api-key-hint" />
          <p class="hint" id="api-key-hint">It is kept in this page's memory, gone when you reload, and sent to this gateway alone, in the Authorization header. No cookies. The admin key opens the Keys page.</p>
        </div>
        <label class="tick"><input type="checkbox" checked=${tab} onChange=${(event) => setTab(event.target.checked)} /><span>Keep it until this tab is closed <span class="muted">(sessionStorage)</span></span></label>
        <div class="row">
          <button class="button main" type="submit">Use this key</button>
          ${key && html`<button class="button" type="button" onClick=${() => setKey("", false)}>Forget it</button>`}
        </div>
      </form>
    <//>
  `;
}

function Tools() {
  const { key } = useStore(session);
  const [theme, setTheme] = useState(document.documentElement.dataset.theme ?? "");
  const dark = theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const turn = () => {
    const next = dark ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    try {
      localStorage.setItem("imagegate.theme", next);
    } catch {
      // it holds until the page is left
    }
    setTheme(next);
  };
  return html`
    <button type="button" class="button" onClick=${() => session.set({ asking: true })}><span class=${`dot ${key ? "on" : ""}`}></span>API key<span class="unseen">${key ? " (set)" : " (not set)"}</span></button>
    <button type="button" class="button square" aria-label=${`Switch to the ${dark ? "light" : "dark"} theme`} onClick=${turn}><${Icon} name=${dark ? "sun" : "moon"} /></button>
  `;
}

render(html`<${Tools} />`, document.getElementById("tools"));
const main = document.getElementById("main");
main.replaceChildren();
render(html`<${App} />`, main);
