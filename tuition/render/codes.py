"""What each rendering code means, why it matters and how to mend it. `tuition explain CODE` prints an entry."""

from __future__ import annotations

from dataclasses import replace

from tuition.data import Code
from tuition.errors import Finding, Origin

# How a next step begins that would make room for longer examples; see `way_to_longer`.
RAISE_MAX_LENGTH = "Raise max_length"

RENDER_CODES: dict[str, Code] = {
    "R001": Code(
        "the template refuses the conversation",
        "error",
        "Chat templates may raise an error, for a system message or two user turns in a row, for example. "
        "Serving would fail on the same messages, so they cannot be learned either.",
        "Change the messages to what the template allows, or give another with --chat-template FILE.",
    ),
    "R002": Code(
        "the generation prompt is not how the turn begins",
        "error",
        "Serving feeds the conversation with the template's generation prompt and lets the model go on from "
        "there. Here the template writes the finished turn differently, so what would be learned is not what "
        "would be asked.",
        "Where the template has a switch for it, set it: chat_template_kwargs: {enable_thinking: false}. Else use a "
        "template whose finished turn begins with its own generation prompt (--chat-template FILE).",
    ),
    "R003": Code(
        "the template trims white space",
        "warning",
        "White space at the ends of a message, such as the indent of a code answer, does not reach the model.",
        "Accept it, since serving trims too, or use a template that does not trim.",
    ),
    "R004": Code(
        "the template leaves a message out",
        "warning",
        "The message is in the data and not in what the model sees, neither now nor when served. System "
        "messages suffer this most.",
        "Move the text into a turn that the template writes, or use another template.",
    ),
    "R005": Code(
        "the template does not show a tool",
        "warning",
        "The row declares tools, but the template writes none of them, so the model learns calls to tools it "
        "was never told of.",
        "Use a template that supports tools.",
    ),
    "R006": Code(
        "the template leaves reasoning out",
        "warning",
        "The reasoning of the turn is in the data and not in what is learned.",
        "Use a template that writes reasoning_content, or put the reasoning into the answer.",
    ),
    "R007": Code(
        "content spells out a control token",
        "warning",
        "Text such as <|im_end|> in a message would be read as the real token and could end or forge a turn. "
        "It is tokenised as plain text instead, so the content stays content.",
        "Leave it, if the text is meant; else remove it from the row.",
    ),
    "R008": Code(
        "control tokens in content cannot be kept apart",
        "error",
        "The content holds a control token's spelling and every mark that could keep it apart, or the template "
        "or the tokenizer changes the text so that no mark helps.",
        "Remove the control token, or the Unicode noncharacters U+FDD0 to U+FDEF, from the row.",
    ),
    "R009": Code(
        "nothing ends an answer",
        "warning",
        "Neither the template nor the tokenizer has a token that ends an answer, so the model cannot learn to stop.",
        "Give the tokenizer an eos_token, or use a template that ends a turn with a special token.",
    ),
    "R010": Code(
        "the template ends an answer with no special token",
        "info",
        "The tokenizer's EOS is learned after each answer, so that the model stops by itself.",
        "Nothing; the stop token is written to generation_config.",
    ),
    "R011": Code(
        "a conversation cannot be plain text",
        "error",
        "Without a chat template there is one prompt and one completion; roles and further turns cannot be told apart.",
        "Drop --chat-template none, or give a template.",
    ),
    "R012": Code(
        "nothing of the row is learned",
        "error",
        "Every token is context, so the row would only cost time.",
        "Give an assistant turn a weight above 0 (with train_on: spans, put markers around what is to be learned), "
        "or remove the row.",
    ),
    "R013": Code(
        "one conversation became several examples",
        "info",
        "The template writes earlier turns differently once there are later ones (it drops their reasoning, "
        "for example). Each learned turn is an example of its own, with the context that serving would feed.",
        "Nothing; every turn is learned once.",
    ),
    "R014": Code(
        "longer than max_length",
        "error",
        "The example does not fit. Cutting it would teach the model to stop nowhere, so it is set aside.",
        f"{RAISE_MAX_LENGTH}, shorten the row, or set too_long: split, cut_turns or cut.",
    ),
    "R015": Code(
        "cut at max_length",
        "warning",
        "The end of the answer is missing. No stop token is learned after the cut, so no false end is taught.",
        f"{RAISE_MAX_LENGTH}, or shorten the row.",
    ),
    "R016": Code(
        "the template leaves an answer out",
        "error",
        "The answer of a learned turn is not in what the template wrote, so something else would be learned.",
        "Use a template that writes assistant content as it is.",
    ),
    "R017": Code(
        "the template leaves a tool call out",
        "error",
        "A learned turn calls a tool, and the name or an argument of the call is not in what the template "
        "wrote, so the model would learn an empty turn or a call without its arguments.",
        "Use a template that supports tool calls (--chat-template FILE).",
    ),
    "R018": Code(
        "an example of the row has nothing left to learn",
        "warning",
        "The row became several examples and this one has no learned token, for example because its answer "
        "stood behind max_length. The others are kept.",
        f"{RAISE_MAX_LENGTH}, or shorten the row.",
    ),
    "R019": Code(
        "a message that should be learned cannot be found",
        "error",
        "The message has a weight above 0, but the template does not write it in a way that tells its tokens "
        "from the others, so the weight would be ignored.",
        "Set the weight of the message to 0, or use a template that writes each message on its own.",
    ),
    "R020": Code(
        "no learned turn fits max_length",
        "error",
        "too_long: cut_turns and split keep whole turns only, and no learned turn of the row fits with what "
        "serving would feed before it.",
        f"{RAISE_MAX_LENGTH}, shorten the row, or set too_long: cut.",
    ),
    "R021": Code(
        "cut at a message",
        "warning",
        "The example was too long, so it ends with the last learned turn that fits, its stop token included. "
        "The turns behind it are not learned.",
        f"{RAISE_MAX_LENGTH}, or set too_long: split, which learns them in examples of their own.",
    ),
    "R022": Code(
        "one long conversation became several examples",
        "info",
        "The example was too long. Each of its learned turns is learned once, in an example that begins with "
        "the system message and the newest exchanges that fit, written by the template as serving would. "
        "Running text becomes windows that share one token.",
        f"Nothing. {RAISE_MAX_LENGTH} to learn it in one piece.",
    ),
    "R023": Code(
        "a turn of a long conversation is set aside",
        "warning",
        "The conversation was split, and some of it is in none of the examples: a learned turn that does not "
        "fit even with the shortest history, or messages that no learned turn follows closely enough.",
        f"{RAISE_MAX_LENGTH}, or shorten the messages that are named.",
    ),
    "R024": Code(
        "text looks like span markers",
        "warning",
        "The content holds the markers that train_on: spans reads, but another train_on is set, so they are "
        "text like any other and the model learns or sees them.",
        "Set train_on: spans if they are meant as markers, or other span_markers if they are not.",
    ),
    "R025": Code(
        "span markers do not pair up",
        "error",
        "A span is opened and not closed, closed and not opened, or stands inside another, so what is to be "
        "learned cannot be told.",
        "Close each span before the next one opens, or set other span_markers.",
    ),
    "R026": Code(
        "a span in a message that is not learned",
        "warning",
        "Spans are learned in assistant messages and in messages with a weight above 0. In others the markers "
        "are taken out and the text is context.",
        "Give the message a weight above 0, or remove the markers.",
    ),
    "R027": Code(
        "the learned part of a turn cannot be located",
        "error",
        "Only part of the turn is learned (train_on: spans, or learn_reasoning: false), but the template or the "
        "tokenizer changes the text so that the place of that part cannot be proved.",
        "Use a template that writes content as it is; where the tokenizer normalises, write the text in NFC.",
    ),
    "R028": Code(
        "the template writes today's date",
        "warning",
        "The template asks for the day and writes it into its prompts. All rows are learned with one day, the "
        "same after a resume, but what is served on another day begins with another prompt.",
        "Name the day with template_date: YYYY-MM-DD, or give a template that writes no date (--chat-template FILE).",
    ),
    "R029": Code(
        "the template opens a thought that it drops from finished turns",
        "info",
        "The generation prompt ends with an opened thought (DeepSeek-R1's does), and finished turns are written "
        "without any. A model that is served goes on from the prompt, so the thought of the row is learned behind "
        "it, then the answer and the token that ends the turn. In the history of later turns it is dropped, as "
        "when serving.",
        "Nothing to do.",
    ),
}


def finding(code: str, origin: Origin, message: str, fix: str | None = None) -> Finding:
    """A finding with the severity of the catalogue and, unless `fix` is given, its next step."""
    entry = RENDER_CODES[code]
    return Finding(code, entry.severity, origin, message, fix or entry.mend)


def way_to_longer(max_length: int, positions: int | None) -> str:
    """What to do for longer examples: raise max_length, or where the model holds no more, take another model.

    Args:
        positions: the most tokens that the model holds; None: it does not say.
    """
    if positions is None or max_length < positions:
        return RAISE_MAX_LENGTH
    return f"The model holds no more than {positions:,} tokens: take another"


def to_longer(found: Finding, way: str) -> Finding:
    """The finding with a next step that can be taken where it would raise max_length.

    Args:
        way: see `way_to_longer`.
    """
    if way == RAISE_MAX_LENGTH or RAISE_MAX_LENGTH not in found.fix:
        return found
    return replace(found, fix=found.fix.replace(RAISE_MAX_LENGTH, way))
