// Light, dark, or as the system has it. theme.js applies the choice before the first paint.

import { readItem, writeItem } from "./store.js";
import { icon } from "./text.js";

const KEY = "nanochat/theme";
const CHOICES = { auto: "System colours", light: "Light", dark: "Dark" };

/** The button goes through the three; a change in another tab is followed. */
export function followTheme(button) {
  const chosen = () => (readItem(KEY) in CHOICES ? readItem(KEY) : "auto");
  const apply = () => {
    const theme = chosen();
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    button.replaceChildren(icon(theme), CHOICES[theme]);
    button.title = "Colours: system, light, dark";
  };
  button.addEventListener("click", () => {
    const names = Object.keys(CHOICES);
    const next = names[(names.indexOf(chosen()) + 1) % names.length];
    writeItem(KEY, next === "auto" ? null : next);
    apply();
  });
  window.addEventListener("storage", (event) => {
    if (event.key === KEY || event.key === null) apply();
  });
  apply();
}
