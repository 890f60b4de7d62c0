// Before anything is drawn: the theme that was chosen here, if any; otherwise the system's.
(() => {
  try {
    const chosen = localStorage.getItem("bmdb-theme");
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  } catch {
    // Storage may be forbidden.
  }
})();
