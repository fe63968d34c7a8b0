// Runs before the first paint, so that the page never flashes in the wrong colours. Not a module for that reason.
(() => {
  let theme = null;
  try {
    theme = localStorage.getItem("nanochat/theme");
  } catch {
    // storage is switched off: the system's choice holds
  }
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
})();
