// One short notice at a time at the foot of the page, and words for screen readers.

const SHOWN_FOR = 7000; // milliseconds
const $ = (id) => document.getElementById(id);
let timer = null;

/** Shows `text`; with `undo` also a button that calls it. */
export function toast(text, undo = null) {
  clearTimeout(timer);
  $("toast-text").textContent = text;
  $("toast-undo").hidden = undo === null;
  $("toast-undo").onclick = () => {
    dismissToast();
    undo();
  };
  $("toast").hidden = false;
  timer = setTimeout(dismissToast, SHOWN_FOR);
}

export function dismissToast() {
  $("toast").hidden = true;
}

/** Read aloud, not shown. */
export function say(text) {
  $("status").textContent = text;
}
