"""What every finding code means, why it matters and how to mend it.

D0 codes are about conversations (D001–D019 reject the row, D020–D049 keep it), D050–D069 about files
and lines, D070 onwards again about rows that are kept. `tuition explain CODE` prints an entry; `finding` makes a Finding of one.
"""

from __future__ import annotations

import reprlib
import shlex
from dataclasses import dataclass
from functools import lru_cache

from tuition.errors import Finding, Origin, Severity


@dataclass(frozen=True)
class Code:
    """One kind of finding.

    Attributes:
        title: what is wrong, in a few words.
        severity: `error` rejects the row or the file; `warning` and `info` keep it.
        explanation: why it matters.
        mend: the next step, a sentence; `FILE` in it stands for the file of the finding.
    """

    title: str
    severity: Severity
    explanation: str
    mend: str


class RowError(Exception):
    """Raised inside this room when a row cannot become a conversation; `Reading` turns it into a finding."""

    def __init__(self, reason: Finding) -> None:
        self.reason = reason
        super().__init__(str(reason))


def finding(code: str, origin: Origin, message: str, fix: str | None = None) -> Finding:
    """A finding with the severity and, unless `fix` is given, the next step of the catalogue.

    Args:
        message: what is wrong, with what was seen; no final full stop.
    """
    return Finding(code, CODES[code].severity, origin, message, fix or _default_fix(code, origin.file))


def refused(code: str, origin: Origin, message: str, fix: str | None = None) -> RowError:
    """The error to raise where a row cannot be converted."""
    return RowError(finding(code, origin, message, fix))


def quote(value: object, longest: int = 60) -> str:
    """A value as it is shown in a message: on one line and short, whatever a file holds."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if not isinstance(value, str):
        return _REPR.repr(value)
    return repr(value if len(value) <= longest else value[: longest - 1] + "…")


_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxdict, _REPR.maxlist, _REPR.maxlong = 2, 4, 4, 30


@lru_cache(maxsize=4096)
def _default_fix(code: str, file: str) -> str:
    return CODES[code].mend.replace("FILE", shlex.quote(file))


_SET_ASIDE = "set the rows aside: tuition check FILE --quarantine rejected.jsonl"

CODES: dict[str, Code] = {
    # --- rows that cannot be learned from ---
    "D001": Code(
        "no known shape",
        "error",
        "The row's keys fit none of the shapes that are read: what is question, what answer, is unknown.",
        "Say which columns hold what, such as --mapping prompt=COLUMN,completion=COLUMN, rename them to one of "
        f"the shapes, or {_SET_ASIDE}.",
    ),
    "D002": Code(
        "preference row, not a demonstration",
        "error",
        "The row compares answers. Learning both teaches the rejected one; learning one is your choice.",
        "Keep these rows for the preference step. To learn the chosen answers of a file that holds nothing else: "
        "--mapping prompt=prompt,completion=chosen, or --mapping messages=chosen where they are whole conversations.",
    ),
    "D003": Code(
        "field of the wrong type",
        "error",
        "Text is learned byte for byte. A number or a list would have to be spelled by guessing.",
        f'Write the field as text in the source, such as "4" for 4, or {_SET_ASIDE}.',
    ),
    "D004": Code(
        "no assistant turn",
        "error",
        "Only answers are learned; a conversation without one teaches nothing.",
        f"Add an answer, or {_SET_ASIDE}.",
    ),
    "D005": Code(
        "empty answer",
        "error",
        "A model trained on empty answers learns to end its turn at once.",
        f"Write the answer, or {_SET_ASIDE}.",
    ),
    "D006": Code(
        "unknown role",
        "error",
        "Chat templates drop or refuse roles that they do not know, so the turn would vanish.",
        f"Use system, developer, user, assistant or tool, or {_SET_ASIDE}.",
    ),
    "D007": Code(
        "malformed turn",
        "error",
        "A turn is an object with a role and a content (or from and value).",
        f'Write each turn as {{"role": "user", "content": "…"}}, or {_SET_ASIDE}.',
    ),
    "D008": Code(
        "content that is not text",
        "error",
        "Only text is learned. Leaving an image or a sound out would leave a question about nothing.",
        f"Keep text parts only where the turn makes sense without the others, or {_SET_ASIDE}.",
    ),
    "D009": Code(
        "nothing is learned",
        "error",
        "Every answer, or the whole row, has weight 0. The row would cost time and change nothing.",
        f"Give an answer a weight above 0, or {_SET_ASIDE}.",
    ),
    "D010": Code(
        "weight is negative, undefined or out of range",
        "error",
        "Weights multiply the loss; a negative or undefined one would unlearn or poison the whole step, and one over "
        "10^15, or below its inverse, is lost or drowns the others in single precision.",
        f"Use 0 for context, 1 for learned, or leave the weight out; or {_SET_ASIDE}.",
    ),
    "D011": Code(
        "tool call cannot be read",
        "error",
        "A call needs a name and arguments that are a JSON object. A model learns broken calls faithfully.",
        f"Mend the call's JSON at the source, or {_SET_ASIDE}.",
    ),
    "D012": Code(
        "tool list cannot be read",
        "error",
        "`tools` is a list of JSON schemas, or the same as a JSON string. Without it calls have no meaning.",
        f'Write "tools" as a list of objects, or {_SET_ASIDE}.',
    ),
    "D013": Code(
        "row holds no conversation",
        "error",
        "The list of messages, instances or replies is empty, so there is nothing to learn from.",
        f"Fill the list at the source, or {_SET_ASIDE}.",
    ),
    "D014": Code(
        "annotation without a usable answer",
        "error",
        "The export holds no submitted answer, or several boxes of which none is named as the answer.",
        f"Submit an answer in the annotation tool and export again, or {_SET_ASIDE}.",
    ),
    "D015": Code(
        "half a character (lone surrogate)",
        "error",
        "The text holds half of a two-part character (\\ud800–\\udfff), usually cut by a limit on length. "
        "It has no UTF-8 form, so no tokenizer can read it.",
        f"Cut the text between whole characters at the source, or {_SET_ASIDE}.",
    ),
    "D016": Code(
        "a mapped column is missing",
        "error",
        "The mapping names the column that holds the question or the answer, and the row does not have it.",
        f"Mend the mapping, or {_SET_ASIDE}.",
    ),
    "D017": Code(
        "judged answer, not a demonstration",
        "error",
        "The row says whether its answer is good. A bad one would be learned like a good one.",
        "Keep the rows that are judged true and drop the column, to learn them as demonstrations; keep all of them "
        "for the preference step.",
    ),
    # --- rows that are kept, and deserve a look ---
    "D020": Code(
        "empty user turn",
        "warning",
        "The model learns to answer a question that nobody asked.",
        "Write the question, or remove the row.",
    ),
    "D021": Code(
        "turns after the final answer",
        "warning",
        "Nothing is learned after the last answer, so the turns that follow it are set aside.",
        "Add the answer that is missing, or leave it so: the conversation up to the last answer is learned.",
    ),
    "D022": Code(
        "two turns of one role in a row",
        "warning",
        "Many chat templates refuse this or merge the turns, and it often shows that a turn was lost.",
        "Join the two turns, or add the one that is missing between them.",
    ),
    "D023": Code(
        "the assistant speaks first",
        "warning",
        "An answer without a question is learned as an opening. Several templates refuse it.",
        "Add the user's turn before it, or set its weight to 0.",
    ),
    "D024": Code(
        "system turn that is not first",
        "warning",
        "Most templates accept one system turn, at the start; elsewhere they drop or refuse it.",
        "Move the system text to the first turn.",
    ),
    "D025": Code(
        "call of an undeclared tool",
        "warning",
        "The model learns to call tools that it is not told about.",
        'Declare the tool in the row\'s "tools".',
    ),
    "D026": Code(
        "tool result that answers no call",
        "warning",
        "The result follows no call of that id, so the model learns from an answer out of nowhere.",
        "Add the assistant's tool call before it, or mend tool_call_id.",
    ),
    "D027": Code(
        "null in a tool call or in the tools",
        "warning",
        "Arrow and Parquet give every row the keys of all rows and fill in null, so calls gain arguments "
        "that nobody wrote, and tools gain parameters.",
        "Store arguments and tools as JSON strings: they pass through Parquet unchanged.",
    ),
    "D028": Code(
        "id stands twice in one file",
        "warning",
        "Another row of the file has the same id, so a report, a mend or an answer cannot be traced to its row; "
        "often a file was joined with itself.",
        "Give each row an id of its own, or remove the copy.",
    ),
    "D029": Code(
        "tool call without a result",
        "warning",
        "The conversation goes on before the call is answered. The model learns to go on without the result.",
        'Add the {"role": "tool"} turn with the result after the call.',
    ),
    "D030": Code(
        "exact duplicate",
        "warning",
        "The same conversation stands earlier; it is learned once more in every epoch.",
        "Remove the copy, unless the repetition is meant.",
    ),
    "D031": Code(
        "control characters",
        "warning",
        "Invisible characters are learned like all others; most are traces of a damaged copy.",
        "Remove them at the source, unless the model should write them.",
    ),
    "D032": Code(
        "answer is a placeholder",
        "warning",
        "The whole answer is a word such as nan, null or None, which is how tools write a missing value.",
        "Write the answer, or remove the row.",
    ),
    "D033": Code(
        "answer repeats the question",
        "warning",
        "Answer and question are the same text, usually because a column was copied twice.",
        "Write the answer, or remove the row.",
    ),
    "D034": Code(
        "answer is a web page or an error message",
        "warning",
        "A failed request was saved as the answer, and would be learned as one.",
        "Write the answer, or remove the row.",
    ),
    "D035": Code(
        "answer is a refusal",
        "warning",
        "The answer opens like another assistant's refusal. A few hundred of them teach a model to refuse.",
        "Keep it if the refusal is meant; else write the answer.",
    ),
    "D036": Code(
        "chat marker in the text",
        "warning",
        "The text holds a marker of a chat template. It is learned as plain text, never as the marker.",
        "Remove it if it is left over from another tool's formatting.",
    ),
    "D037": Code(
        "near duplicate",
        "warning",
        "Most of the conversation stands in an earlier row, with a few words changed. Near copies make a model "
        "repeat what they say, and one of them may fall on each side of the validation split.",
        "Keep the better of the two, or give both the same group.",
    ),
    "D038": Code(
        "overlap with evaluation data",
        "warning",
        "The model learns what it is later judged by, so that its score measures memory.",
        "Remove the row from the training data, or the question from the evaluation.",
    ),
    "D039": Code(
        "held-out row stands in the training data",
        "warning",
        "The same conversation is learned from, so the held-out loss and scores are better than they should be.",
        "Remove the row from one of the two files.",
    ),
    "D040": Code(
        "placeholder input read as empty",
        "info",
        "Early instruction sets write <noinput> where there is no input. It is read as no input.",
        "Nothing to do; an empty string says the same.",
    ),
    "D041": Code(
        "several reference answers",
        "info",
        "The instances list more than one accepted output. The first is learned.",
        "Nothing to do, or write one row for each answer that should be learned.",
    ),
    "D042": Code(
        "columns that are not used",
        "info",
        "The shape that was found has no place for these columns: they are not learned. Said once a file.",
        "Nothing to do if they describe the row.",
    ),
    "D043": Code(
        "a text column is not used",
        "warning",
        "The column holds question or answer text in other shapes, but not in the one that was found.",
        "Join its text to the prompt, or rename the columns to a shape that has it.",
    ),
    "D044": Code(
        "no row has a mapped column",
        "warning",
        "The mapping names a column that stands in no row of the file, most likely a misspelling.",
        "Mend the mapping, or leave the name out of it.",
    ),
    "D045": Code(
        "e-mail address or phone number",
        "warning",
        "A model can be brought to recite what it learned, and with it how to reach a person.",
        "Replace it by an invented one, or make sure that the person agreed.",
    ),
    "D046": Code(
        "payment card or bank account",
        "warning",
        "The number passes its check digits, so it is most likely a real card or account.",
        "Replace it by an invented one.",
    ),
    "D047": Code(
        "key or token",
        "warning",
        "A key in training data is a key in the model, and in every copy of it. Whoever holds it can use it.",
        "Revoke the key now, then replace it in the data.",
    ),
    "D048": Code(
        "another language than the rest",
        "info",
        "Nearly all rows are in one language and this one is in another; often a row of another data set.",
        "Nothing to do if the row is meant.",
    ),
    "D049": Code(
        "tool arguments written as text",
        "info",
        "OpenAI's files write a call's arguments as a JSON string; other trainers expect the object. Both are "
        "read here. Only `--fix` says it, where it writes the object.",
        "Nothing to do.",
    ),
    "D070": Code(
        "name, place or number of identity",
        "warning",
        "Presidio took the text for personal data. Names and places are guesses: a poet is a person too.",
        "Look at the row; replace what belongs to a person by something invented.",
    ),
    "D071": Code(
        "less replay than asked for",
        "warning",
        "The replay sources do not hold enough rows that can be learned and are not held out by their prompt.",
        "Add general data to `replay`, or lower `replay_share`.",
    ),
    "D072": Code(
        "characters that were decoded wrongly",
        "warning",
        "Text such as Ã¼ for ü, â€™ for ’ or the replacement sign � was read in another encoding than it was "
        "written in, before it came here. The model would learn to write it.",
        "Export the data again as UTF-8, or repair it (the ftfy library does).",
    ),
    "D073": Code(
        "characters that cannot be seen",
        "info",
        "Zero-width spaces and signs that turn the direction of writing are tokens to a model and nothing to a "
        "reader. Joiners are not meant: emoji and several scripts need them.",
        "Remove them, unless they are meant.",
    ),
    "D074": Code(
        "HTML where nobody speaks of it",
        "info",
        "Entities such as &amp; and tags such as <br> are what a scraper left of a web page. The model would "
        "learn to write them.",
        "Convert the text (html.unescape, or a converter to Markdown), unless it is meant.",
    ),
    "D075": Code(
        "answer begins with the name of its role",
        "info",
        "The chat template already says who speaks. Learned, the model writes the label into every answer.",
        "Take the label off, unless it is meant.",
    ),
    "D076": Code(
        "answer goes round in circles",
        "warning",
        "The last 240 characters are one piece repeated: a model was cut off in a loop, or a script misfired. A "
        "model that learns this loops too.",
        "Write the end of the answer anew, or remove the row.",
    ),
    "D077": Code(
        "one question, several answers",
        "info",
        "The turns before the last answer stand in an earlier row with another answer. That is good where several "
        "answers are right, and a contradiction where one is.",
        "Look at both; keep them where both are right.",
    ),
    "D078": Code(
        "empty system turn",
        "warning",
        "Tables fill in null where a row has no system text, and an empty system turn is rendered like any other: the "
        "model learns under a prompt that nobody sends when it is served.",
        "Write the system text, or remove that turn.",
    ),
    # --- files and lines ---
    "D050": Code(
        "no rows",
        "error",
        "The file is empty or holds only blank lines, often after an export that failed.",
        "Write the file again, or leave it out.",
    ),
    "D051": Code(
        "not UTF-8",
        "error",
        "The bytes are in another encoding. Guessing it would change the text silently.",
        f"Convert the file, e.g. iconv -f latin1 -t utf-8, or {_SET_ASIDE}.",
    ),
    "D052": Code(
        "NUL bytes",
        "error",
        "NUL bytes in a text file mean that a write was cut off, or that the file is UTF-16.",
        f"Write the file again (iconv -f utf-16 -t utf-8 for UTF-16), or {_SET_ASIDE}.",
    ),
    "D053": Code(
        "byte-order mark",
        "info",
        "The file begins with a byte-order mark, as Windows tools write. It is skipped, the first row kept.",
        "Nothing to do.",
    ),
    "D054": Code(
        "invalid JSON",
        "error",
        "The line does not follow JSON's grammar, so its meaning would have to be guessed.",
        f"Mend the line, or {_SET_ASIDE}.",
    ),
    "D055": Code(
        "duplicate key",
        "error",
        "One object names the same key twice. Readers keep one of the values and lose the other silently.",
        f"Remove one of the two, or {_SET_ASIDE}.",
    ),
    "D056": Code(
        "row is not an object",
        "error",
        "A row names its fields. A bare list, text or number does not say what is question and what answer.",
        f'Write it as an object, such as {{"messages": [...]}}, or {_SET_ASIDE}.',
    ),
    "D057": Code(
        "nested too deeply",
        "error",
        "Such nesting is never a demonstration, and it crashes readers and templates further on.",
        f"Flatten the row, or {_SET_ASIDE}.",
    ),
    "D058": Code(
        "row too long",
        "error",
        "One row of this size is more than any model reads; usually the line breaks of the file were lost.",
        f"Write one row per line, or {_SET_ASIDE}.",
    ),
    "D059": Code(
        "not a data file",
        "error",
        "The first bytes belong to another kind of file than the name says.",
        "Fetch or convert the real data, and give that file.",
    ),
    "D060": Code(
        "layout other than the name says",
        "info",
        "A .jsonl file holds a JSON array, or a .json file holds one object per line. Both are read.",
        "Nothing to do; rename the file to please other tools.",
    ),
    "D061": Code(
        "the rest of the file cannot be read",
        "error",
        "The array or object ends before the file does, or the file before the array. Rows may be missing.",
        "Write the file again as JSON Lines: one object per line.",
    ),
    "D062": Code(
        "damaged compression",
        "error",
        "The compressed file ends early or fails its checksum; the rows before the damage were read.",
        "Download or compress the file again.",
    ),
    "D063": Code(
        "ragged row",
        "error",
        "The row has more or fewer cells than the header, so text would land under the wrong name.",
        f"Quote the cell that holds the delimiter, or {_SET_ASIDE}.",
    ),
    "D064": Code(
        "header missing or unclear",
        "error",
        "The first line must name the columns. Without it the first row is lost and no shape fits.",
        "Add a first line such as prompt,completion.",
    ),
    "D065": Code(
        "broken quoting",
        "error",
        'A cell opens a quote that is not closed. Inside quotes, a quote is written twice ("").',
        f"Mend the quotes on this line, or {_SET_ASIDE}.",
    ),
    "D066": Code(
        "Parquet or Arrow cannot be read",
        "error",
        "The file is cut off or damaged; both keep their directory at the end.",
        "Download or write the file again.",
    ),
    "D067": Code(
        "line ends of Windows",
        "info",
        "Lines end with a carriage return and a line feed. Both are read. Only `--fix` says it, where it writes "
        "line feeds.",
        "Nothing to do.",
    ),
    "D068": Code(
        "demonstration without consent or licence",
        "error",
        "Its prompt comes from a source of which nobody said how its people agreed, or under which licence it is.",
        'State them: tuition collect import --store FILE --source NAME --consent "…" --licence "…".',
    ),
}
