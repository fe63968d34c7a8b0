// Conversations, kept in this browser: one key of localStorage each.
//
// Notable: two tabs never write a common list, so neither can wipe out the other's conversations. Every write carries a
// new `rev`; whoever finds another rev on disk than the one read writes a copy instead of over it. What cannot be
// stored (full, switched off) stays in memory and the caller is told. What cannot be read is left where it is.

const PREFIX = "nanochat/conversation/";
const memory = new Map(); // key -> text that the storage refused

export const newId = () => Array.from(crypto.getRandomValues(new Uint8Array(8)), (b) => b.toString(16).padStart(2, "0")).join("");

export const newConversation = () => ({ id: newId(), title: "", created: Date.now(), updated: Date.now(), rev: null, messages: [] });

export function readItem(key) {
  if (memory.has(key)) return memory.get(key);
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

/** Whether the storage took it; if not, it is kept as long as this tab lives. `null` removes. */
export function writeItem(key, value) {
  memory.delete(key);
  try {
    if (value === null) localStorage.removeItem(key);
    else localStorage.setItem(key, value);
    return true;
  } catch {
    if (value !== null) memory.set(key, value);
    return false;
  }
}

export const idOfKey = (key) => (key?.startsWith(PREFIX) ? key.slice(PREFIX.length) : null);

/** The stored conversation; null where there is none or it makes no sense. */
export function load(id) {
  return parse(readItem(PREFIX + id), id);
}

function parse(text, id) {
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    return null;
  }
  if (!value || typeof value !== "object" || !Array.isArray(value.messages)) return null;
  const messages = value.messages.filter(
    (m) => m && (m.role === "user" || m.role === "assistant") && typeof m.content === "string",
  );
  const number = (x) => (Number.isFinite(x) ? x : 0);
  return {
    id,
    title: typeof value.title === "string" ? value.title : "",
    created: number(value.created),
    updated: number(value.updated),
    rev: typeof value.rev === "string" ? value.rev : null,
    messages,
  };
}

/** All conversations, the latest first. */
export function all() {
  let keys = [];
  try {
    keys = Object.keys(localStorage);
  } catch {
    // storage is switched off
  }
  const ids = new Set([...keys, ...memory.keys()].map(idOfKey).filter(Boolean));
  return [...ids].map(load).filter(Boolean).sort((a, b) => b.updated - a.updated);
}

/**
 * Writes the conversation and gives it its new rev. False: the storage refused, it lives as long as this tab.
 * If another tab has written it in the meantime, `conversation` becomes a copy with an id of its own.
 */
export function save(conversation) {
  const stored = load(conversation.id);
  if (stored && stored.rev !== conversation.rev) {
    conversation.id = newId();
    conversation.title = `${conversation.title || titleOf(conversation)} (copy)`;
  }
  conversation.rev = newId();
  return writeItem(PREFIX + conversation.id, JSON.stringify(conversation));
}

/** Removes it; returns what `restore` needs to bring it back. */
export function remove(id) {
  const conversation = load(id);
  writeItem(PREFIX + id, null);
  return conversation;
}

export function restore(conversation) {
  conversation.rev = null;
  return save(conversation);
}

/** The title given to it, else how its first message begins. */
export function titleOf(conversation) {
  if (conversation.title) return conversation.title;
  const first = conversation.messages.find((m) => m.role === "user");
  const line = first?.content.trim().split("\n")[0] ?? "";
  return line.length > 60 ? `${line.slice(0, 58).trimEnd()}…` : line || "New conversation";
}
