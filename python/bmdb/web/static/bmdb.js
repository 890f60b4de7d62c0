// Keys, the theme, and how old what is shown is. Without it everything works, but for being live.
(() => {
  "use strict";

  // The theme: the system's until somebody presses the button, which is remembered here.
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  document.getElementById("theme")?.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try {
      localStorage.setItem("bmdb-theme", root.dataset.theme);
    } catch {
      // Then it holds for this page only.
    }
  });

  // How old each live panel is: the server dates what it sends, but only here is it known that nothing came since.
  const panels = new Map();
  const known = (panel) => {
    if (!panels.has(panel)) {
      panels.set(panel, { since: performance.now(), why: panel.querySelector(".problem") ? "it failed" : "" });
    }
    return panels.get(panel);
  };
  const live = () => document.querySelectorAll("section[hx-get]");
  const status = document.getElementById("live");
  const say = (text) => {
    // Told to a screen reader only when it changes.
    if (status && status.textContent !== text) status.textContent = text;
  };

  const look = () => {
    let late = 0;
    for (const panel of live()) {
      const { since, why } = known(panel);
      const every = Number(panel.dataset.every) * 1000;
      const age = performance.now() - since;
      const stale = !document.hidden && age > 2 * every + 3000;
      if (stale) late += 1;
      panel.classList.toggle("is-stale", stale);
      const told = stale ? ` · ${Math.round(age / 1000)} s old${why ? `: ${why}` : ""}` : "";
      const place = panel.querySelector(".stale");
      if (place && place.textContent !== told) place.textContent = told;
    }
    if (live().length) say(late ? "Not up to date" : "Live");
  };

  document.addEventListener("htmx:before:request", (event) => {
    // Nobody looks, so nobody asks.
    if (document.hidden && event.target.matches?.("section[hx-get]")) event.preventDefault();
  });
  document.addEventListener("htmx:after:request", (event) => {
    const panel = event.target.closest?.("section[hx-get]");
    if (!panel) return;
    const answer = event.detail.ctx.response;
    if (answer.status < 400) {
      panels.set(panel, { since: performance.now(), why: "" });
    } else {
      const said = answer.headers.get("Panel-Problem") || `the server answered ${answer.status}`;
      panels.set(panel, { since: known(panel).since, why: said });
    }
    look();
  });
  document.addEventListener("htmx:error", (event) => {
    const panel = event.target.closest?.("section[hx-get]");
    if (panel) panels.set(panel, { since: known(panel).since, why: "the server does not answer" });
    look();
  });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) return;
    for (const panel of live()) panel.dispatchEvent(new CustomEvent("every"));
  });
  setInterval(look, 1000);
  look();

  // Keys: "/" for the filter, j and k or the arrows from row to row. Nothing happens while somebody types.
  const rows = () => [...document.querySelectorAll("table[data-rows] tbody tr")].filter((row) => row.querySelector("a"));
  const move = (step) => {
    const all = rows();
    if (!all.length) return;
    const at = all.findIndex((row) => row.contains(document.activeElement));
    const next = at < 0 ? (step > 0 ? 0 : all.length - 1) : Math.min(Math.max(at + step, 0), all.length - 1);
    const link = all[next].querySelector("a");
    link.focus();
    all[next].scrollIntoView({ block: "nearest" });
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const typing = event.target.closest?.("input, select, textarea");
    if (event.key === "Escape" && typing) {
      typing.blur();
      return;
    }
    if (typing) return;
    const inRows = event.target.closest?.("table[data-rows]");
    if (event.key === "/") {
      const filter = document.querySelector("[data-filter]");
      if (!filter) return;
      filter.focus();
      filter.select();
    } else if (event.key === "j" || (event.key === "ArrowDown" && inRows)) {
      move(1);
    } else if (event.key === "k" || (event.key === "ArrowUp" && inRows)) {
      move(-1);
    } else {
      return;
    }
    event.preventDefault();
  });
})();
