// Which models the server has, and the key it may ask for.

import { apiKey, models, setApiKey } from "./api.js";
import { readItem, writeItem } from "./store.js";
import { element } from "./text.js";

const CHOSEN = "nanochat/model";
const $ = (id) => document.getElementById(id);

/** Fills the choice of models; says there if the server cannot be reached, and asks for a key if it wants one. */
export async function connect() {
  try {
    showModels(await models());
  } catch (error) {
    showModels([]);
    $("model").append(option(error.status === 401 ? "key needed" : "not connected", ""));
    $("model-box").classList.add("lost");
    if (error.status === 401) askForKey();
  }
}

function showModels(names) {
  $("model").replaceChildren(...names.map((name) => option(name, name)));
  const chosen = readItem(CHOSEN);
  if (names.includes(chosen)) $("model").value = chosen;
  $("model").disabled = names.length < 2;
  $("model-box").classList.remove("lost");
}

const option = (text, value) => Object.assign(element("option", "", text), { value });

/** The name to ask for; empty while the server has not been reached. */
export const chosenModel = () => $("model").value;

export function keepChosenModel() {
  writeItem(CHOSEN, $("model").value);
}

/** Opens the field for the key; `then` is called once there is a new one. */
export function askForKey(then = () => {}) {
  const dialog = $("key-dialog");
  if (dialog.open) return;
  $("key-field").value = apiKey();
  dialog.returnValue = "";
  $("key-cancel").onclick = () => dialog.close("cancel");
  dialog.onclose = () => {
    if (dialog.returnValue !== "save") return;
    setApiKey($("key-field").value.trim(), $("key-keep").checked);
    connect();
    then();
  };
  dialog.showModal();
}
