// The messages of a conversation as elements of the page, with what can be done to each.

import { copy, element, icon, iconButton, show } from "./text.js";

const views = new WeakMap(); // message -> its element

/** Makes `box` show these messages. `running` is the message that is being written, `actions` what buttons call. */
export function showMessages(box, messages, running, actions) {
  messages.forEach((message, i) => {
    let view = views.get(message);
    if (!view) {
      view = message.role === "user" ? userTurn(message, actions) : assistantTurn(message, actions);
      views.set(message, view);
    }
    if (box.children[i] !== view) box.insertBefore(view, box.children[i] ?? null);
    view.update({ running: message === running, last: i === messages.length - 1, busy: running !== null });
  });
  while (box.children.length > messages.length) box.lastElementChild.remove();
}

function turn(role, label) {
  const made = element("article", `turn ${role}`);
  made.setAttribute("aria-label", label);
  made.body = element("div", "body");
  made.actions = element("div", "actions");
  made.append(made.body, made.actions);
  return made;
}

function userTurn(message, actions) {
  const made = turn("user", "You");
  const copier = iconButton("copy", "Copy");
  copier.addEventListener("click", () => copy(copier, message.content));
  const editor = iconButton("edit", "Edit and send again", "edit");
  editor.addEventListener("click", () => edit(made, message, actions));
  made.actions.append(copier, editor);
  made.update = ({ busy }) => {
    if (!made.classList.contains("editing")) show(made.body, message.content, false);
    editor.disabled = busy;
  };
  made.edit = () => edit(made, message, actions);
  return made;
}

/** The message in a field of its own. What came after it is dropped when it is sent, so that is said. */
function edit(made, message, actions) {
  const form = element("form", "editor");
  const area = element("textarea");
  area.value = message.content;
  area.setAttribute("aria-label", "Edit the message");
  const cancel = element("button", "quiet", "Cancel");
  cancel.type = "button";
  const send = element("button", "solid", "Send");
  const note = element("span", "note", "Replaces everything below.");
  const row = element("div", "row");
  row.append(note, cancel, send);
  form.append(area, row);
  const close = () => {
    made.classList.remove("editing");
    form.remove();
    made.body.hidden = false;
    made.actions.querySelector(".edit").focus();
  };
  cancel.addEventListener("click", close);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!area.value.trim()) return;
    close();
    actions.resend(message, area.value.trim());
  });
  area.addEventListener("input", () => fitHeight(area));
  area.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      event.stopPropagation();
      close();
    } else if (isSendKey(event)) {
      event.preventDefault();
      form.requestSubmit();
    }
  });
  made.classList.add("editing");
  made.body.hidden = true;
  made.body.after(form);
  fitHeight(area);
  area.focus();
}

function assistantTurn(message, actions) {
  const made = turn("assistant", "nanochat");
  const copier = iconButton("copy", "Copy the answer");
  copier.addEventListener("click", () => copy(copier, message.content));
  const again = iconButton("again", "Answer again", "again");
  again.addEventListener("click", () => actions.regenerate(message));
  const meta = element("span", "meta");
  const notice = element("div", "notice");
  const forgot = element("div", "notice note");
  made.actions.append(copier, again, meta);
  made.body.before(forgot);
  made.body.after(notice);
  made.update = ({ running, last, busy }) => {
    show(made.body, message.content, true);
    made.classList.toggle("running", running);
    made.classList.toggle("waiting", running && !message.content);
    made.setAttribute("aria-busy", String(running));
    made.actions.hidden = running;
    copier.hidden = !message.content;
    again.hidden = !last || Boolean(message.error);
    again.disabled = busy;
    forgot.hidden = !message.forgot;
    forgot.textContent = message.forgot ? `The conversation is longer than the model's context: without the ${message.forgot} oldest turns.` : "";
    meta.textContent = running ? "" : speed(message);
    showNotice(notice, running ? null : noticeOf(message), message, last && !busy ? actions : null);
  };
  return made;
}

function speed({ tokens, seconds }) {
  if (!tokens) return "";
  return `${tokens} tokens${seconds > 0 ? ` · ${Math.round(tokens / seconds)}/s` : ""}`;
}

function noticeOf(message) {
  if (message.error) return { kind: "error", text: message.error.message };
  if (message.finish === "length") return { kind: "note", text: "Cut off: the answer reached its longest length." };
  if (message.finish !== "stop") return { kind: "note", text: "Stopped." };
  return null;
}

function showNotice(box, notice, message, actions) {
  const signature = JSON.stringify([notice, Boolean(actions)]);
  if (box.signature === signature) return;
  box.signature = signature;
  box.replaceChildren();
  box.className = `notice ${notice?.kind ?? ""}`;
  if (!notice) return;
  if (notice.kind === "error") box.setAttribute("role", "alert");
  box.append(element("span", "", notice.text));
  if (notice.kind === "error" && actions) box.append(retryButton(message, actions));
}

/** Waits as long as the server wished before it can be pressed. */
function retryButton(message, actions) {
  const button = element("button", "quiet retry");
  button.type = "button";
  const label = element("span", "", "Retry");
  button.append(icon("again"), label);
  button.addEventListener("click", () => actions.regenerate(message));
  const until = (message.error.at ?? 0) + (message.error.after ?? 0) * 1000;
  const tick = () => {
    const left = Math.ceil((until - Date.now()) / 1000);
    button.disabled = left > 0;
    label.textContent = left > 0 ? `Retry in ${left} s` : "Retry";
    if (left > 0) setTimeout(() => button.isConnected && tick(), 250);
  };
  tick();
  return button;
}

/** Enter, unless it ends a composition (Japanese, Chinese), makes a new line, or is typed on a touch keyboard. */
export function isSendKey(event) {
  const touch = matchMedia("(hover: none) and (pointer: coarse)").matches;
  return event.key === "Enter" && !event.shiftKey && !event.isComposing && !touch;
}

/** As high as its text, within what the stylesheet allows. */
export function fitHeight(area) {
  area.style.height = "auto";
  area.style.height = `${area.scrollHeight + 2}px`;
}
