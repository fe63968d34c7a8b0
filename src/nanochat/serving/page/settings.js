// How answers are drawn: the panel of parameters, kept in this browser.

import { readItem, writeItem } from "./store.js";
import { element } from "./text.js";

const KEY = "nanochat/parameters";
const FIELDS = [
  { name: "temperature", label: "Temperature", min: 0, max: 2, step: 0.05, initial: 0.6, note: "0 takes the likeliest token" },
  { name: "top_p", label: "Top-p", min: 0.01, max: 1, step: 0.01, initial: 1, note: "the likeliest tokens up to this share" },
  { name: "min_p", label: "Min-p", min: 0, max: 1, step: 0.01, initial: 0, note: "at least this share of the likeliest" },
  { name: "repetition_penalty", label: "Repetition penalty", min: 0.5, max: 2, step: 0.05, initial: 1, note: "above 1 avoids what was said" },
  { name: "top_k", label: "Top-k", min: 0, whole: true, initial: 50, note: "so many tokens; 0: all" },
  { name: "max_tokens", label: "Longest answer", min: 1, whole: true, initial: null, note: "in tokens; empty: as long as fits" },
  { name: "seed", label: "Seed", min: 0, max: 2 ** 31 - 1, whole: true, initial: null, note: "empty: another each time" },
];

const initial = () => ({ ...Object.fromEntries(FIELDS.map((f) => [f.name, f.initial])), system: "" });

function fits(field, value) {
  if (value === null) return field.initial === null;
  return Number.isFinite(value) && value >= field.min && value <= (field.max ?? 1e6) && (!field.whole || Number.isInteger(value));
}

/** What is kept, with the default for everything that is missing or makes no sense. */
export function parameters() {
  const values = initial();
  let stored = {};
  try {
    stored = JSON.parse(readItem(KEY) ?? "{}") ?? {};
  } catch {
    // damaged: the defaults
  }
  for (const field of FIELDS) if (field.name in stored && fits(field, stored[field.name])) values[field.name] = stored[field.name];
  if (typeof stored.system === "string") values.system = stored.system;
  return values;
}

/** The fields of a request; a seed is drawn where none is set, so that asking again gives another answer. */
export function requestFields() {
  const { system, seed, ...rest } = parameters();
  const asked = Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== null));
  return { system, fields: { ...asked, seed: seed ?? crypto.getRandomValues(new Uint32Array(1))[0] >>> 1 } };
}

/** Builds the panel's fields in `box` and keeps every change. */
export function buildPanel(box, systemArea, defaultsButton) {
  const redraw = () => fill(box, systemArea, parameters());
  for (const field of FIELDS) box.append(fieldElement(field));
  box.addEventListener("input", (event) => {
    const field = FIELDS.find((f) => f.name === event.target.dataset.name);
    const value = event.target.value.trim() === "" ? null : Number(event.target.value);
    const good = !event.target.validity.badInput && fits(field, value);
    event.target.setAttribute("aria-invalid", String(!good));
    if (!good) return;
    writeItem(KEY, JSON.stringify({ ...parameters(), [field.name]: value }));
    for (const twin of box.querySelectorAll(`[data-name="${field.name}"]`)) if (twin !== event.target) twin.value = value;
  });
  box.addEventListener("focusout", redraw);
  systemArea.addEventListener("input", () => writeItem(KEY, JSON.stringify({ ...parameters(), system: systemArea.value })));
  defaultsButton.addEventListener("click", () => {
    writeItem(KEY, null);
    redraw();
  });
  redraw();
  return redraw;
}

function fill(box, systemArea, values) {
  for (const input of box.querySelectorAll("input")) {
    input.value = values[input.dataset.name] ?? "";
    input.removeAttribute("aria-invalid");
  }
  systemArea.value = values.system;
}

function fieldElement(field) {
  const made = element("div", "field");
  const label = element("label", "name", field.label);
  label.htmlFor = `field-${field.name}`;
  const number = input("number", field);
  number.id = label.htmlFor;
  number.placeholder = field.initial === null ? "auto" : String(field.initial);
  const head = element("div", "field-head");
  head.append(label, number);
  made.append(head);
  if (!field.whole) {
    const range = input("range", field);
    range.setAttribute("aria-label", field.label);
    made.append(range);
  }
  made.append(element("span", "note", field.note));
  return made;
}

function input(type, field) {
  const made = element("input");
  made.type = type;
  made.dataset.name = field.name;
  made.min = field.min;
  if (field.max !== undefined) made.max = field.max;
  made.step = field.whole ? 1 : field.step;
  made.inputMode = field.whole ? "numeric" : "decimal";
  return made;
}
