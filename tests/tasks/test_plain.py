from nanochat.tasks.base import chat, part, tool_call
from nanochat.tasks.plain import as_text
from nanochat.tasks.spelling_bee import solution


def test_turns():
    messages = [*chat("Hi", "Hello!")["messages"], *chat("Who are you?", "nanochat")["messages"]]
    assert as_text({"messages": messages}) == "Hi\nHello!\n\nWho are you?\nnanochat"


def test_system_message_stands_in_front():
    system = {"role": "system", "content": "Be kind."}
    assert as_text({"messages": [system, *chat("Hi", "Hello!")["messages"]]}) == "Be kind.\n\nHi\nHello!"


def test_tool_calls_stand_on_their_own_line():
    parts = [part("text", "So"), *tool_call("37+58", "95"), part("text", "37+58=95")]
    assert as_text(chat("What is 37+58?", parts)) == "What is 37+58?\nSo\n37+58 = 95\n37+58=95"


def test_spelling():
    text = as_text(chat("How many e are in bee?", solution("bee", "e")))
    assert text == "How many e are in bee?\nbee:b,e,e\ne: b0 e1 e2\n'bee'.count('e') = 2\n#### 2"
