"""Parity, Stop, Nothing vanishes and No forging, over generated conversations, tokenizers and templates."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import CHAT, TEXT, make_tokenizer
from tests.render.helpers import ORIGIN, REWRITES_HISTORY, render_one
from tuition.conversation import Conversation, Message
from tuition.render import Outcome, Renderer
from tuition.render.choosing import CHATML
from tuition.render.evidence import Witness
from tuition.render.template import ChatTemplate

SPECIAL = ("<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
TEMPLATES = {
    "chat": CHAT,
    "chatml": "{{ bos_token }}" + CHATML,
    "rewrites history": REWRITES_HISTORY,
    "llama 2": (
        "{% for m in messages %}{% if m.role == 'assistant' %} {{ m.content }} </s>"
        "{% else %}{{ bos_token if m.role == 'user' }}[INST] {{ m.content }} [/INST]{% endif %}{% endfor %}"
    ),
    "trims": CHAT.replace("{{ m.content }}", "{{ m.content | trim }}"),
    "drops system": "{% for m in messages if m.role != 'system' %}"
    + CHAT.removeprefix("{% for m in messages %}"),
}


@cache
def tokenizer_of(kind: str) -> Any:
    """A tokenizer of one kind with every control token of the templates."""
    if kind.startswith("byte-level"):
        tokenizer = make_tokenizer(bos=kind.endswith("bos"))
        tokenizer.add_special_tokens({"extra_special_tokens": [s for s in SPECIAL if s.startswith("<|")]})
        return tokenizer
    return _trained(kind)


def _trained(kind: str) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<unk>", *SPECIAL]
    alphabet = sorted(set("".join(TEXT)) | set("<|>[]/ab") | {"▁"})
    if kind == "wordpiece":
        raw = Tokenizer(models.WordPiece(unk_token="<unk>"))
        raw.normalizer = normalizers.BertNormalizer(lowercase=True)
        raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        raw.decoder = decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet)
    else:
        unigram = kind == "metaspace unigram"
        scheme = "first" if kind.endswith("first") else "always"
        raw = Tokenizer(models.Unigram() if unigram else models.BPE(unk_token="<unk>"))
        raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=unigram)
        raw.decoder = decoders.Metaspace(prepend_scheme=scheme, split=unigram)
        trainer = (
            trainers.UnigramTrainer(
                vocab_size=300, special_tokens=special, unk_token="<unk>", initial_alphabet=alphabet
            )
            if unigram
            else trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet)
        )
    raw.train_from_iterator(TEXT, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens=[s for s in SPECIAL if s.startswith("<|")],
    )


TOKENIZERS = [
    "byte-level",
    "byte-level bos",
    "metaspace bpe always",
    "metaspace bpe first",
    "metaspace unigram",
    "wordpiece",
]


@cache
def renderer_of(kind: str, template: str, **options: Any) -> Renderer:
    """One for all examples of a test: what it tries of a tokenizer costs more than to render."""
    tokenizer = tokenizer_of(kind)
    chosen = ChatTemplate(TEMPLATES[template], dict(tokenizer.special_tokens_map), template)
    settings = {"train_on": "assistant", "max_length": 10**6, "too_long": "drop", **options}
    return Renderer(tokenizer, chosen, **settings)


hostile = st.sampled_from(
    [
        *SPECIAL, "<|", "|>", "<|im_", "end|>", "{{ bos_token }}", "{% endfor %}", "[INST]", "[/INST]",
        "\0", "\u202e", "\u200f", "\ufdd0", "\n", "\n\n", " ", "  ", "\t", "\r\n", "é", "😀", "▁", "long " * 400,
    ]
)  # fmt: skip
words = st.sampled_from(["The", " cat", "sat", " on", " mat", ".", "Paris", "a", "def", " add", "Hello"])
texts = st.lists(words | hostile, min_size=1, max_size=5).map("".join)
reasonings = st.none() | texts.filter(str.strip)


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    messages = [Message("system", draw(texts))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        messages.append(Message("user", draw(texts)))
        messages.append(Message("assistant", draw(texts), reasoning=draw(reasonings)))
    return Conversation(tuple(messages), ORIGIN)


def served(r: Renderer, conversation: Conversation, position: int) -> list[int]:
    """The prompt before a turn as transformers makes it: only for content that holds no control token."""
    return r.tokens.tokenizer.apply_chat_template(
        [m.to_template() for m in conversation.messages[:position]],
        chat_template=r.template.source,
        add_generation_prompt=True,
        return_dict=False,
    )


def has_prefix(ids: np.ndarray, prefix: list[int]) -> bool:
    return ids[: len(prefix)].tolist() == list(prefix)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("kind", TOKENIZERS)
@settings(max_examples=20)
@given(conversation=conversations())
def test_every_invariant_holds(kind: str, template: str, conversation: Conversation) -> None:
    r = renderer_of(kind, template)
    outcome = render_one(r, conversation)
    found = {finding.code for finding in outcome.findings}
    if not outcome.examples:
        assert found & {"R001", "R002", "R008", "R016"}
        return
    answers = [n for n, m in enumerate(conversation.messages) if m.role == "assistant"]
    ends = [example.ids[example.supervised > 0] for example in outcome.examples]
    for position in answers:  # Parity
        prompt = r.prompt_ids(conversation.messages[:position]).tolist()
        assert any(has_prefix(e.ids, prompt) and e.supervised[len(prompt)] > 0 for e in outcome.examples)
        if "R007" not in found:
            assert prompt == served(r, conversation, position)
    assert all(int(end[-1]) in r.stop_ids for end in ends)  # Stop
    learned = np.concatenate(ends).tolist()
    stop = r.stop_ids[0] if r.stop_ids[0] in learned else r.tokens.eos_id
    assert learned.count(stop) == len(answers)  # No forging: no answer writes the stop but by its end
    plain = Conversation(
        tuple(Message(m.role, "x", reasoning=m.reasoning and "x") for m in conversation.messages), ORIGIN
    )
    expected = render_one(r, plain)
    assert _control_ids(r, outcome) == _control_ids(r, expected)
    _nothing_vanishes(r, conversation, outcome, found)
    _is_proved(r, outcome)


def _is_proved(r: Renderer, outcome: Outcome) -> None:
    """The proof of every run finds nothing amiss in what is sound."""
    witness = Witness(r)
    witness.see(outcome)
    seen = witness.finish()
    faults = seen.unlike_serving, seen.unlike_written, seen.misplaced, seen.forged, seen.unsound
    assert not any(faults), (faults, outcome.findings, outcome.conversation)


def _control_ids(r: Renderer, outcome: Any) -> list[int]:
    """The control tokens of the last example, which holds the whole conversation."""
    return [i for i in outcome.examples[-1].ids.tolist() if i in r.tokens.special_ids]


def _nothing_vanishes(r: Renderer, conversation: Conversation, outcome: Any, found: set[str]) -> None:
    """Only a byte-level tokenizer spells every text exactly, so there each message can be read back."""
    if "Ġ" not in r.tokens.tokenizer.get_vocab():
        return
    whole = "\0\0".join(r.tokens.decode(example.ids) for example in outcome.examples)
    for message in conversation.messages:
        assert message.content in whole or found & {"R003", "R004"}
        assert not message.reasoning or message.reasoning in whole or "R006" in found
