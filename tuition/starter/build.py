"""Make the starter again, from nothing: `python -m tuition.starter.build --to DIR`.

Writes the texts, trains a tokenizer on them, pretrains a tiny Llama on declarative sentences, and saves a
plain transformers model folder. Never tunes: turning this base into an assistant is what the rest is for.
"""

import argparse
import json
import math
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tuition.starter.texts import SEED, Exchange, Texts, make_texts
from tuition.starter.world import every_fact, with_article

END, PAD, USER, ASSISTANT, SYSTEM = "<|end|>", "<|pad|>", "<|user|>", "<|assistant|>", "<|system|>"

# The space after a role is content to the tokenizer, so an answer begins with the token (" Paris") that
# pretraining saw in the middle of sentences; the generation prompt ends at the role, without that space.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if message['role'] not in ['system', 'user', 'assistant'] -%}
{{- raise_exception('this template knows system, user and assistant, not ' + message['role']) -}}
{%- endif -%}
{{- '<|' + message['role'] + '|> ' + message['content'] + '<|end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|assistant|>' -}}
{%- endif -%}
"""


@dataclass(frozen=True)
class Pretraining:
    """Sizes and rates; the lengths are in tokens."""

    vocabulary: int = 4096
    hidden: int = 192
    layers: int = 4
    heads: int = 6
    feed_forward: int = 512
    longest_context: int = 1024
    row_tokens: int = 128
    rows_per_update: int = 16
    updates: int = 2000
    warmup_updates: int = 100
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.05
    max_grad_norm: float = 1.0
    most_sentences_per_document: int = 3


def build(folder: Path, pretraining: Pretraining, compiled: bool) -> None:
    """Write every file of the starter into `folder`, and print what the base knows."""
    torch.manual_seed(SEED)
    texts = make_texts()
    write_texts(texts, folder)
    tokenizer = train_tokenizer(texts.pretraining, pretraining.vocabulary, pretraining.longest_context)
    model = new_model(pretraining, tokenizer)
    print_sizes(texts, model)
    if compiled:
        model.compile()
    pretrain(model, tokenizer, texts.pretraining, pretraining)
    save(model, tokenizer, folder / "base")
    report(folder / "base", texts)


def write_texts(texts: Texts, folder: Path) -> None:
    """Exchanges as JSON lines of messages, the general text one sentence a line."""
    folder.mkdir(parents=True, exist_ok=True)
    write_lines(folder / "demonstrations.jsonl", map(as_row, texts.demonstrations))
    write_lines(folder / "heldout.jsonl", map(as_row, texts.heldout))
    write_lines(folder / "general.txt", texts.general)


def as_row(exchange: Exchange) -> str:
    """One exchange as a JSON line in the messages shape."""
    question, answer = exchange
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return json.dumps({"messages": messages}, ensure_ascii=False)


def write_lines(path: Path, lines: Iterator[str] | list[str]) -> None:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def train_tokenizer(sentences: list[str], vocabulary: int, longest_context: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE: any text round-trips, and no space is added or removed."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END, PAD, USER, ASSISTANT, SYSTEM],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(sentences + [" " + sentence for sentence in sentences], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[USER, ASSISTANT, SYSTEM],
        clean_up_tokenization_spaces=False,
        model_max_length=longest_context,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def new_model(pretraining: Pretraining, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A Llama with random weights and tied embeddings, in fp32."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=pretraining.hidden,
        intermediate_size=pretraining.feed_forward,
        num_hidden_layers=pretraining.layers,
        num_attention_heads=pretraining.heads,
        num_key_value_heads=pretraining.heads,
        max_position_embeddings=pretraining.longest_context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def pretrain(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    sentences: list[str],
    pretraining: Pretraining,
) -> None:
    """Next-token prediction over rows of shuffled documents, in place."""
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=pretraining.learning_rate,
        betas=(0.9, 0.95),
        weight_decay=pretraining.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda update: rate(update, pretraining))
    batches = endless_batches(tokenizer, sentences, pretraining)
    started = time.monotonic()
    for update in range(1, pretraining.updates + 1):
        rows = next(batches)
        # bf16 products are faster where the processor has them; the weights and their updates stay fp32
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(input_ids=rows, labels=rows, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), pretraining.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if update % 100 == 0:
            seconds = time.monotonic() - started
            print(f"update {update:5d}  loss {loss.item():.3f}  {seconds:.0f} s", flush=True)


def rate(update: int, pretraining: Pretraining) -> float:
    """The share of the learning rate at this update: linear warm-up, then a cosine to a hundredth."""
    if update < pretraining.warmup_updates:
        return (update + 1) / pretraining.warmup_updates
    done = (update - pretraining.warmup_updates) / (pretraining.updates - pretraining.warmup_updates)
    return 0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2


def endless_batches(
    tokenizer: PreTrainedTokenizerFast, sentences: list[str], pretraining: Pretraining
) -> Iterator[Tensor]:
    """Rows of documents, cut wherever a row is full: (rows_per_update, row_tokens) int64, for ever."""
    tokens_per_update = pretraining.rows_per_update * pretraining.row_tokens
    chooser = random.Random(SEED)
    stream: list[int] = []
    while True:
        for document in documents(sentences, pretraining.most_sentences_per_document, chooser):
            stream += [*tokenizer(document).input_ids, tokenizer.eos_token_id]
            if len(stream) >= tokens_per_update:
                yield torch.tensor(stream[:tokens_per_update]).view(-1, pretraining.row_tokens)
                stream = stream[tokens_per_update:]


def documents(sentences: list[str], most_sentences: int, chooser: random.Random) -> Iterator[str]:
    """All sentences once, shuffled, in documents of one to `most_sentences`; a note ends its document."""
    document: list[str] = []
    wanted = chooser.randint(1, most_sentences)
    for sentence in chooser.sample(sentences, len(sentences)):
        document.append(sentence)
        is_note = sentence[-1] not in ".?!"
        if is_note or len(document) == wanted:
            yield " ".join(document)
            document, wanted = [], chooser.randint(1, most_sentences)
    if document:
        yield " ".join(document)


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """A plain model folder in bf16: half the bytes, and what is measured below is what is stored."""
    model.to(torch.bfloat16)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=False
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def print_sizes(texts: Texts, model: LlamaForCausalLM) -> None:
    facts = sum(1 for _ in every_fact())
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{facts} facts, {len(texts.pretraining)} pretraining and {len(texts.general)} general sentences")
    print(f"{len(texts.demonstrations)} demonstrations, {len(texts.heldout)} held-out questions")
    print(f"{parameters / 1e6:.2f} million parameters", flush=True)


@torch.inference_mode()
def report(folder: Path, texts: Texts) -> None:
    """Print the stored model's loss on the general sentences, and the facts that it completes."""
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    losses = []
    for sentence in texts.general:
        ids = tokenizer(sentence + END, return_tensors="pt").input_ids
        losses.append(model(input_ids=ids, labels=ids).loss)
    print(f"general sentences: {torch.stack(losses).mean().item():.3f} nats a token")

    known = []
    for relation, entity in every_fact():
        answer = relation.facts[entity]
        phrase = relation.phrase.format(e=entity, an_e=with_article(entity))
        prompt_ids = tokenizer(f"A question about {phrase} has one answer:").input_ids
        answer_ids = tokenizer(" " + answer).input_ids
        logits = model(input_ids=torch.tensor([prompt_ids + answer_ids])).logits[0]
        known.append(logits[len(prompt_ids) - 1 : -1].argmax(-1).tolist() == answer_ids)
    print(f"facts completed: {sum(known)} of {len(known)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--to", type=Path, required=True, help="the folder to write into")
    parser.add_argument("--updates", type=int, default=Pretraining.updates, help="pretraining updates")
    parser.add_argument("--threads", type=int, default=2, help="processor threads")
    parser.add_argument("--compile", action="store_true", help="a third faster; needs a C++ compiler")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    build(arguments.to, Pretraining(updates=arguments.updates), arguments.compile)


if __name__ == "__main__":
    main()
