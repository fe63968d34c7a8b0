// What people and models write, as elements of the page.
//
// Notable: everything becomes text nodes. Nothing here, or anywhere in the page, parses HTML, so a message can hold
// any markup and it is shown as the letters it is made of. Known are code between fences, `code` in a line, and the
// tool calls as the server writes them: [python: 1+1] [output: 2].

const FENCE = /^ {0,3}(```+|~~~+)[ \t]*([^\s`]*)[^\n`]*$/;
const EXPRESSION = String.raw`((?:(?!\[python: )[^\n])*?)`;
const TOOL = new RegExp(
  String.raw`\[python: (?:${EXPRESSION}\] \[output: ([^\n]*?)(?:\](?: |(?=\n)|$)|$)|([^\n\]]*)(?:\]|$))`,
  "g",
);

/** Text -> blocks {kind: "text" | "code" | "tool"}; an unfinished fence or call at the end counts as begun. */
export function blocksOf(text, withTools) {
  const blocks = [];
  let plain = [];
  let code = null;
  const flush = () => {
    const joined = plain.join("\n").replace(/^\n+|\s+$/g, "");
    if (joined) blocks.push(...(withTools ? splitTools(joined) : [{ kind: "text", text: joined }]));
    plain = [];
  };
  for (const line of text.split(/\r\n|[\r\n]/)) {
    const fence = FENCE.exec(line);
    if (code && fence && fence[1][0] === code.fence[0] && fence[1].length >= code.fence.length && !fence[2]) {
      blocks.push({ kind: "code", text: code.lines.join("\n"), language: code.language });
      code = null;
    } else if (code) {
      code.lines.push(line);
    } else if (fence) {
      flush();
      code = { fence: fence[1], language: fence[2], lines: [] };
    } else {
      plain.push(line);
    }
  }
  flush();
  if (code) blocks.push({ kind: "code", text: code.lines.join("\n"), language: code.language });
  return blocks;
}

function splitTools(text) {
  const blocks = [];
  let from = 0;
  for (const match of text.matchAll(TOOL)) {
    if (match.index > from) blocks.push({ kind: "text", text: text.slice(from, match.index) });
    blocks.push({ kind: "tool", text: match[1] ?? match[3] ?? "", output: match[2] ?? null });
    from = match.index + match[0].length;
  }
  if (from < text.length) blocks.push({ kind: "text", text: text.slice(from) });
  return blocks;
}

/** An answer as the message parts that training reads: text, python, python_output. */
export function partsOf(text) {
  const parts = [];
  for (const block of splitTools(text)) {
    parts.push({ type: block.kind === "tool" ? "python" : "text", text: block.text });
    if (block.kind === "tool" && block.output !== null) parts.push({ type: "python_output", text: block.output });
  }
  return parts.some((part) => part.type !== "text") ? parts : text;
}

/** Makes the children of `box` show `text`. Blocks that stay the same keep their elements, selection and focus. */
export function show(box, text, withTools) {
  const blocks = blocksOf(text, withTools);
  blocks.forEach((block, i) => {
    const signature = JSON.stringify(block);
    const old = box.children[i];
    if (old?.signature === signature) return;
    if (old?.block?.kind === "code" && block.kind === "code" && old.block.language === block.language) {
      old.querySelector("code").textContent = block.text;
      Object.assign(old, { block, signature });
      return;
    }
    const made = Object.assign(ELEMENTS[block.kind](block), { block, signature });
    if (old) old.replaceWith(made);
    else box.append(made);
  });
  while (box.children.length > blocks.length) box.lastElementChild.remove();
}

const ELEMENTS = { text: paragraph, code: codeBlock, tool: toolCall };

function paragraph(block) {
  const made = element("p", "prose");
  for (const [i, piece] of block.text.split(/`([^`\n]+)`/).entries()) {
    if (i % 2) made.append(element("code", "", piece));
    else if (piece) made.append(piece);
  }
  return made;
}

function codeBlock(block) {
  const figure = element("figure", "code");
  const head = element("figcaption", "", block.language || "text");
  const button = iconButton("copy", "Copy the code", "copy");
  button.addEventListener("click", () => copy(button, figure.querySelector("code").textContent));
  head.append(button);
  const pre = element("pre");
  pre.tabIndex = 0; // long lines scroll, by keyboard too
  pre.append(element("code", "", block.text));
  figure.append(head, pre);
  return figure;
}

function toolCall(block) {
  const made = element("div", "tool");
  made.append(icon("tool"), element("code", "", block.text));
  if (block.output !== null) made.append(element("span", "equals", "→"), element("output", "", block.output));
  made.setAttribute("aria-label", `calculator: ${block.text}${block.output === null ? "" : ` gives ${block.output}`}`);
  made.setAttribute("role", "group");
  return made;
}

export function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

export function iconButton(name, label, className = "") {
  const button = element("button", `icon ${className}`.trim());
  button.type = "button";
  button.title = label;
  button.setAttribute("aria-label", label);
  button.append(icon(name));
  return button;
}

/** Copies, and shows a tick for a moment. Without the clipboard (plain http elsewhere) the text is selected by hand. */
export async function copy(button, text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = element("textarea", "sr");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    button.focus();
  }
  button.replaceChildren(icon("check"));
  setTimeout(() => button.replaceChildren(icon("copy")), 1400);
}
