// The list of conversations: open, rename, delete with undo, export.

import * as store from "./store.js";
import { element, iconButton, partsOf } from "./text.js";

const DAY = 24 * 60 * 60 * 1000;

/** Makes `box` show all conversations, by age. `isRunning(id)` marks those that are being answered. */
export function showList(box, currentId, isRunning, actions) {
  if (box.querySelector("input")) return; // a title is being written: the list waits
  const focused = box.contains(document.activeElement) ? document.activeElement.closest("li")?.dataset.id : null;
  let heading = "";
  box.replaceChildren();
  for (const conversation of store.all()) {
    const age = ageOf(conversation.updated);
    if (age !== heading) box.append(element("li", "age", age));
    heading = age;
    box.append(entry(conversation, conversation.id === currentId, isRunning(conversation.id), actions));
  }
  if (!heading) box.append(element("li", "none", "Conversations are kept in this browser only."));
  if (focused) box.querySelector(`[data-id="${focused}"] .open`)?.focus();
}

function ageOf(time) {
  const midnight = new Date().setHours(0, 0, 0, 0);
  if (time >= midnight) return "Today";
  if (time >= midnight - DAY) return "Yesterday";
  return time >= midnight - 7 * DAY ? "Last week" : "Earlier";
}

function entry(conversation, current, running, actions) {
  const made = element("li", `entry${current ? " current" : ""}${running ? " running" : ""}`);
  made.dataset.id = conversation.id;
  const open = element("button", "open", store.titleOf(conversation));
  open.type = "button";
  open.title = store.titleOf(conversation);
  if (current) open.setAttribute("aria-current", "page");
  open.addEventListener("click", () => actions.open(conversation.id));
  const rename = iconButton("edit", "Rename", "rename");
  rename.addEventListener("click", () => writeTitle(made, conversation, actions));
  const remove = iconButton("delete", "Delete", "delete");
  remove.addEventListener("click", () => actions.remove(conversation.id));
  made.append(open, rename, remove);
  return made;
}

function writeTitle(entry, conversation, actions) {
  const field = element("input");
  field.value = store.titleOf(conversation);
  field.maxLength = 120;
  field.setAttribute("aria-label", "Title");
  let done = false;
  const finish = (keep) => {
    if (done) return;
    done = true;
    field.remove();
    actions.rename(conversation.id, keep ? field.value.trim() : null);
  };
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === "Escape") {
      event.preventDefault();
      event.stopPropagation();
      finish(event.key === "Enter");
    }
  });
  field.addEventListener("blur", () => finish(true));
  entry.replaceChildren(field);
  field.focus();
  field.select();
}

/** All conversations as JSONL that training reads (task custom_json): one a line, turns without an answer left out. */
export function exportAll() {
  const lines = store.all().map(lineOf).filter(Boolean);
  if (!lines.length) return 0;
  const url = URL.createObjectURL(new Blob([`${lines.join("\n")}\n`], { type: "application/jsonl" }));
  const link = element("a");
  link.href = url;
  link.download = "conversations.jsonl";
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
  return lines.length;
}

function lineOf(conversation) {
  const messages = answered(conversation.messages);
  if (!messages.length) return null;
  return JSON.stringify({
    messages: messages.map(({ role, content }) => ({ role, content: role === "assistant" ? partsOf(content) : content })),
  });
}

/** Questions with their answers; those that got none are left out, since turns must alternate. */
export function answered(messages) {
  const kept = [];
  for (let i = 0; i + 1 < messages.length; i += 2) {
    const [question, answer] = [messages[i], messages[i + 1]];
    if (question.role === "user" && answer.role === "assistant" && answer.content.trim()) kept.push(question, answer);
  }
  return kept;
}
