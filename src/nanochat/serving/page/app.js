// The page: which conversation is open, which answers are under way, and what the keys and buttons do.
//
// Notable: an answer belongs to its conversation, not to what is on screen; it goes on while another one is read.

import * as api from "./api.js";
import { answered, exportAll, showList } from "./list.js";
import { askForKey, chosenModel, connect, keepChosenModel } from "./server.js";
import { buildPanel, requestFields } from "./settings.js";
import * as store from "./store.js";
import { element } from "./text.js";
import { followTheme } from "./themes.js";
import { say, toast } from "./toast.js";
import { fitHeight, isSendKey, showMessages } from "./view.js";

const STARTERS = ["Who are you?", "How many r are in strawberry?", "What is 12 times 7?", "Spell banana."];
const SAVE_EVERY = 1000; // milliseconds, while an answer grows

const $ = (id) => document.getElementById(id);
const draft = $("draft");
const scroll = $("scroll");
const runs = new Set(); // {conversation, message, controller}
let current = store.newConversation();
let stick = true; // whether the view follows the end of the conversation
let storageSaid = false;
let leaving = false; // the page is going away, which breaks its connections

const runOf = (conversation) => [...runs].find((run) => run.conversation === conversation) ?? null;

// ---------------------------------------------------------------- what is on screen

let frame = null;

/** Draws at the next frame, however often it is asked for. */
function draw() {
  frame ??= requestAnimationFrame(() => {
    frame = null;
    drawNow();
  });
}

function drawNow() {
  const run = runOf(current);
  showMessages($("log"), current.messages, run?.message ?? null, { resend, regenerate });
  $("welcome").hidden = current.messages.length > 0;
  document.body.classList.toggle("empty", current.messages.length === 0);
  const title = store.titleOf(current);
  if ($("title").textContent !== title) $("title").textContent = title;
  document.title = current.messages.length ? `${title} · nanochat` : "nanochat";
  drawSend(run);
  if (stick) scroll.scrollTop = scroll.scrollHeight;
}

function drawSend(run) {
  const button = $("send");
  const name = run ? "stop" : "send";
  if (button.dataset.shows !== name) {
    button.dataset.shows = name;
    button.querySelector("use").setAttribute("href", `#i-${name}`);
    button.setAttribute("aria-label", run ? "Stop the answer" : "Send");
    button.title = run ? "Stop the answer (Esc)" : "Send";
    button.classList.toggle("stops", Boolean(run));
  }
  button.disabled = !run && !draft.value.trim();
}

function drawList() {
  const running = new Set([...runs].map((run) => run.conversation.id));
  showList($("list"), current.id, (id) => running.has(id), { open: openById, rename, remove });
}

// ---------------------------------------------------------------- conversations

function open(conversation, { focus = true } = {}) {
  current = conversation;
  stick = true;
  $("log").replaceChildren();
  const hash = conversation.messages.length ? `#/${conversation.id}` : "";
  if (location.hash !== hash) history.pushState(null, "", hash || location.pathname + location.search);
  setDrawer(false);
  drawNow();
  drawList();
  if (focus) draft.focus({ preventScroll: true });
}

function openById(id) {
  const run = [...runs].find((r) => r.conversation.id === id);
  open(run?.conversation ?? store.load(id) ?? store.newConversation());
}

function openFromAddress() {
  const id = /^#\/([0-9a-f]+)$/.exec(location.hash)?.[1];
  if (id && id === current.id) return;
  const known = id ? ([...runs].find((r) => r.conversation.id === id)?.conversation ?? store.load(id)) : null;
  open(known ?? store.newConversation(), { focus: false });
}

/** Keeps a conversation; says once if the browser refuses. */
function keep(conversation) {
  const id = conversation.id;
  if (!store.save(conversation) && !storageSaid) {
    storageSaid = true;
    toast("This browser keeps nothing more: its storage is full or off. New text lives as long as this tab.");
  }
  if (conversation.id !== id) toast("This conversation went on in another tab. Both are kept, this one as a copy.");
  if (conversation === current) history.replaceState(null, "", `#/${conversation.id}`);
}

function rename(id, title) {
  const conversation = [...runs, { conversation: current }].map((r) => r.conversation).find((c) => c.id === id) ?? store.load(id);
  if (conversation && title !== null) {
    conversation.title = title;
    keep(conversation);
  }
  drawList();
  draw();
}

function remove(id) {
  for (const run of runs) if (run.conversation.id === id) stop(run, { dropped: true });
  const removed = store.remove(id);
  if (current.id === id) open(store.newConversation());
  drawList();
  toast("Conversation deleted.", () => {
    if (removed) store.restore(removed);
    drawList();
  });
}

// ---------------------------------------------------------------- asking

function send(text) {
  if (runOf(current)) return;
  current.messages.push({ role: "user", content: text });
  ask(current);
}

function resend(message, text) {
  const at = current.messages.indexOf(message);
  if (at < 0 || runOf(current)) return;
  current.messages.splice(at, Infinity, { role: "user", content: text });
  ask(current);
}

/** Asks once more for this answer, the last one. */
function regenerate(message) {
  if (message !== current.messages.at(-1) || runOf(current)) return;
  current.messages.pop();
  ask(current);
}

/** Has the last message answered; the answer is part of the conversation from its first piece on. */
async function ask(conversation) {
  const message = { role: "assistant", content: "", finish: null };
  const run = { conversation, message, controller: new AbortController(), saved: 0 };
  const body = requestOf(conversation);
  conversation.messages.push(message);
  conversation.updated = Date.now();
  runs.add(run);
  stick = true;
  keep(conversation);
  drawNow();
  drawList();
  say("nanochat is answering");
  await answer(run, body);
  runs.delete(run);
  conversation.updated = Date.now();
  if (!run.dropped) keep(conversation);
  draw();
  drawList();
  if (!message.error) say(`Answer: ${message.content || "nothing"}`);
  if (message.error?.status === 401) askForKey(() => conversation === current && regenerate(message));
}

async function answer(run, body) {
  const { message, controller } = run;
  const started = performance.now();
  try {
    const result = await fitting(run, body, (piece) => grow(run, piece));
    message.finish = result.finish ?? "stop";
    message.tokens = result.usage?.completion_tokens ?? null;
    message.seconds = (performance.now() - started) / 1000;
    if (!chosenModel()) connect();
  } catch (error) {
    if (controller.signal.aborted || leaving) message.finish = "stopped";
    else message.error = { message: error.message, status: error.status ?? 0, after: error.after ?? null, at: Date.now() };
  }
}

/** Drops the oldest turns, twice as many each time, until the model's context has room for the rest. */
async function fitting(run, body, onText) {
  const { message, controller } = run;
  for (let dropped = 1; ; dropped *= 2) {
    try {
      return await api.complete(body, controller.signal, onText);
    } catch (error) {
      const first = body.messages.findIndex((m) => m.role === "user");
      const turns = (body.messages.length - first - 1) / 2; // before the question
      if (error.code !== "context_length_exceeded" || turns < 1) throw error;
      body.messages.splice(first, 2 * Math.min(dropped, turns));
      message.forgot = (message.forgot ?? 0) + Math.min(dropped, turns);
    }
  }
}

function grow(run, piece) {
  run.message.content += piece;
  const now = performance.now();
  if (now - run.saved > SAVE_EVERY) {
    run.saved = now;
    keep(run.conversation);
  }
  if (run.conversation === current) draw();
}

function requestOf(conversation) {
  const { system, fields } = requestFields();
  const turns = [...answered(conversation.messages.slice(0, -1)), conversation.messages.at(-1)];
  const messages = turns.map(({ role, content }) => ({ role, content }));
  if (system.trim()) messages.unshift({ role: "system", content: system });
  return { model: chosenModel() || undefined, messages, ...fields };
}

function stop(run, { dropped = false } = {}) {
  run.dropped = dropped;
  run.controller.abort();
}

// ---------------------------------------------------------------- wiring

function setDrawer(shown) {
  document.body.classList.toggle("drawer", shown);
  $("menu").setAttribute("aria-expanded", String(shown));
}

function submit() {
  const run = runOf(current);
  const text = draft.value.trim();
  if (run || !text) return;
  draft.value = "";
  fitHeight(draft);
  send(text);
}

function wireComposer() {
  $("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    const run = runOf(current);
    if (run) stop(run);
    else submit();
  });
  draft.addEventListener("input", () => {
    fitHeight(draft);
    drawSend(runOf(current));
  });
  draft.addEventListener("keydown", (event) => {
    if (isSendKey(event)) {
      event.preventDefault();
      submit();
    } else if (event.key === "ArrowUp" && !draft.value && !runOf(current)) {
      [...$("log").querySelectorAll(".turn.user")].at(-1)?.edit();
    }
  });
  for (const text of STARTERS) {
    const button = element("button", "starter", text);
    button.type = "button";
    button.addEventListener("click", () => send(text));
    $("starters").append(button);
  }
}

function wireScrolling() {
  let last = 0;
  scroll.addEventListener("scroll", () => {
    const below = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight;
    if (below < 24) stick = true;
    else if (scroll.scrollTop < last - 1) stick = false; // only a reader scrolls up
    last = scroll.scrollTop;
    $("jump").hidden = below < 160;
  });
  $("jump").addEventListener("click", () => {
    stick = true;
    scroll.scrollTo({ top: scroll.scrollHeight, behavior: "smooth" });
  });
}

function wireKeys() {
  document.addEventListener("keydown", (event) => {
    const key = event.key.toLowerCase();
    const command = event.ctrlKey || event.metaKey;
    if (key === "escape" && document.querySelector("dialog[open]")) return; // the dialog closes itself
    if (key === "escape" && document.body.classList.contains("drawer")) setDrawer(false);
    else if (key === "escape" && runOf(current)) stop(runOf(current));
    else if (command && event.shiftKey && key === "o") open(store.newConversation());
    else if (command && key === ",") $("sheet").showModal();
    else if (key === "/" && !event.target.closest("input, textarea, dialog")) draft.focus();
    else return;
    event.preventDefault();
  });
}

function wireButtons() {
  $("new").addEventListener("click", () => open(store.newConversation()));
  $("menu").addEventListener("click", () => setDrawer(true));
  $("side-close").addEventListener("click", () => setDrawer(false));
  $("backdrop").addEventListener("click", () => setDrawer(false));
  $("key").addEventListener("click", () => askForKey());
  $("export").addEventListener("click", () => {
    if (!exportAll()) toast("There is nothing to export yet.");
  });
  $("model").addEventListener("change", keepChosenModel);
  const redraw = buildPanel($("fields"), $("system"), $("defaults"));
  $("params").addEventListener("click", () => {
    redraw();
    $("sheet").showModal();
  });
  $("sheet").addEventListener("click", (event) => {
    if (event.target === $("sheet")) $("sheet").close(); // the backdrop
  });
}

function wireWindow() {
  window.addEventListener("popstate", openFromAddress);
  window.addEventListener("pagehide", () => {
    leaving = true;
    runs.forEach((run) => keep(run.conversation));
  });
  window.addEventListener("pageshow", () => (leaving = false)); // back, as it was
  window.addEventListener("storage", (event) => {
    const id = store.idOfKey(event.key);
    if (event.key !== null && id === null) return;
    if ((id === null || id === current.id) && current.messages.length && !runOf(current)) {
      const known = store.load(current.id);
      if (known?.rev !== current.rev) open(known ?? store.newConversation(), { focus: false });
    }
    drawList();
  });
}

wireComposer();
wireScrolling();
wireKeys();
wireButtons();
wireWindow();
followTheme($("theme"));
openFromAddress();
drawNow();
drawList();
connect();
if (!matchMedia("(pointer: coarse)").matches) draft.focus();
