"""A conversation as plain text, for corpora that are read before the model knows of turns.

The words stand as in a chat, so that what base learns here serves later: each turn on lines of its own with no role
names, a tool call written `expression = result`, and a blank line before each further question.
"""

from nanochat.tasks.base import Content, Conversation


def as_text(conversation: Conversation) -> str:
    """The conversation without any special token; no newline at the end."""
    blocks: list[str] = []
    for message in conversation["messages"]:
        text = content_text(message["content"])
        if message["role"] == "assistant" and blocks:
            blocks[-1] += "\n" + text
        else:
            blocks.append(text)
    return "\n\n".join(blocks)


def content_text(content: Content) -> str:
    """One message; a tool call stands on a line of its own."""
    if isinstance(content, str):
        return content
    lines: list[str] = []
    for item in content:
        if item["type"] == "python_output" and lines:
            lines[-1] += " = " + item["text"]
        else:
            lines.append(item["text"].strip("\n"))
    return "\n".join(lines)
