"""A fresh process that reads an export as a stranger would: transformers (and peft for an adapter), nothing of ours.

Run as a script: `python -P reader.py REQUEST ANSWER`. It never imports tuition, so that what it sees is
what anybody sees who loads the folder.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch


def main(request_file: str, answer_file: str) -> None:
    """Load the folder that the request names and write down what it says and answers."""
    from safetensors.torch import save_file
    from transformers import AutoTokenizer

    request = json.loads(Path(request_file).read_text(encoding="utf-8"))
    tokenizer = AutoTokenizer.from_pretrained(
        request["folder"], trust_remote_code=request["code"], local_files_only=True
    )
    _set_day(tokenizer.chat_template, request["day"])
    model = _load(request["folder"], request["dtype"], tokenizer, code=request["code"])
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    stops = stops_in(Path(request["folder"]))
    texts = [list(map(int, tokenizer(text)["input_ids"])) for text in request["texts"]]
    prompts = [_prompt_ids(tokenizer, text, request["plain"]) for text in request["prompts"]]
    expected = list(zip(request["prompt_ids"], request["answers"], strict=True))
    given = [greedy(model, prompt, stops, request["room"]) for prompt, _ in expected]
    save_file(layers_of(model, request["probe"]), answer_file + ".safetensors")
    answer = {
        "template": _default_template(tokenizer.chat_template),
        "vocabulary": vocabulary_sha256(tokenizer),
        "stop_ids": stops,
        "text_ids": texts,
        "prompt_ids": prompts,
        "answers": given,
        "gaps": [_gap(model, prompt, want, got) for (prompt, want), got in zip(expected, given, strict=True)],
        "tied": is_tied(base),
    }
    Path(answer_file).write_text(json.dumps(answer), encoding="utf-8")


def _load(folder: str, dtype: str, tokenizer: Any, *, code: bool) -> Any:
    """`code`: the user trusts the model's own code, which was looked at before the export."""
    from transformers import AutoModelForCausalLM

    adapter = Path(folder) / "adapter_config.json"
    if not adapter.exists():
        return AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            trust_remote_code=code,
            local_files_only=True,
        ).eval()
    sys.modules.setdefault("kernels", None)  # type: ignore[arg-type]  # bitsandbytes would fetch code with it
    from peft import PeftModel

    said = json.loads(adapter.read_text(encoding="utf-8"))
    base = AutoModelForCausalLM.from_pretrained(
        said["base_model_name_or_path"],
        revision=said.get("revision"),
        dtype=getattr(torch, dtype),
        use_safetensors=True,
        trust_remote_code=code,
        local_files_only=True,
    )
    if len(tokenizer) > base.get_input_embeddings().num_embeddings:
        base.resize_token_embeddings(len(tokenizer))
    return PeftModel.from_pretrained(base, folder, use_safetensors=True, local_files_only=True).eval()


def _set_day(template: Any, day: str | None) -> None:
    """Tell a template that asks for today's date the day that training told it."""
    if day is None or not isinstance(template, str) or "strftime_now" not in template:
        return
    import datetime

    from transformers.utils.chat_template_utils import _compile_jinja_template

    moment = datetime.datetime.fromisoformat(day)
    _compile_jinja_template(template).environment.globals["strftime_now"] = moment.strftime


def _default_template(template: Any) -> str | None:
    return template.get("default") if isinstance(template, dict) else template


def _prompt_ids(tokenizer: Any, text: str, plain: bool) -> list[int]:
    if plain:
        return list(map(int, tokenizer(text)["input_ids"]))
    if tokenizer.chat_template is None:
        return []
    messages = [{"role": "user", "content": text}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    return list(map(int, ids))


def vocabulary_sha256(tokenizer: Any) -> str:
    """One hash of every token with its id, and of how each added token is found in a text."""
    added = {
        i: [t.content, t.special, t.lstrip, t.rstrip, t.normalized]
        for i, t in tokenizer.added_tokens_decoder.items()
    }
    said = json.dumps([sorted(tokenizer.get_vocab().items()), sorted(added.items())])
    return hashlib.sha256(said.encode()).hexdigest()


def stops_in(folder: Path) -> list[int]:
    """The stop tokens that generation_config.json names."""
    file = folder / "generation_config.json"
    known = json.loads(file.read_text(encoding="utf-8")).get("eos_token_id") if file.exists() else None
    return [] if known is None else [known] if isinstance(known, int) else list(known)


def is_tied(model: Any) -> bool:
    """Whether the head and the embeddings are one tensor."""
    head = model.get_output_embeddings()
    return head is not None and bool(head.weight is model.get_input_embeddings().weight)


def greedy(model: Any, prompt: Sequence[int], stops: Sequence[int], room: int) -> list[int]:
    """The ids that the model answers greedily, with the stop token that ended it if one did."""
    from transformers import GenerationConfig

    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    shipped = base.generation_config
    base.generation_config = GenerationConfig()  # penalties and sampling of the model's own file stay out
    wanted = GenerationConfig(
        max_new_tokens=room, do_sample=False,
        eos_token_id=list(stops) or None, pad_token_id=stops[0] if stops else 0,
    )  # fmt: skip
    ids = torch.tensor([list(prompt)], device=model.device)
    try:
        with torch.inference_mode():
            row = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=wanted
            )[0]
    finally:
        base.generation_config = shipped
    return list(map(int, row[len(prompt) :].tolist()))


def layers_of(model: Any, probe: Sequence[int]) -> dict[str, torch.Tensor]:
    """What every layer gives for a probe row, and the logits: float32 on the CPU, named in order."""
    ids = torch.tensor([list(probe)], device=model.device)
    with torch.inference_mode():
        output = model(input_ids=ids, use_cache=False, output_hidden_states=True)
    states = {f"{i:04d}": state for i, state in enumerate(output.hidden_states or ())}
    return {
        name: state[0].float().cpu().clone() for name, state in {**states, "logits": output.logits}.items()
    }


def _gap(model: Any, prompt: Sequence[int], want: Sequence[int], got: Sequence[int]) -> float:
    """By how much of its largest logit the model prefers another token where its answer first differs.

    0 where the answers are the same. A tie within rounding has a tiny gap; another model has a large one.
    """
    at = next(
        (i for i, (a, b) in enumerate(zip(want, got, strict=False)) if a != b), min(len(want), len(got))
    )
    if list(want) == list(got):
        return 0.0
    if at >= len(want) or at >= len(got):  # one of them went on where the other had ended
        return float("inf")
    ids = torch.tensor([[*prompt, *want[:at]]], device=model.device)
    with torch.inference_mode():
        logits = model(input_ids=ids, use_cache=False).logits[0, -1].float()
    return float((logits[got[at]] - logits[want[at]]).abs() / logits.abs().max().clamp(min=1.0))


if __name__ == "__main__":
    main(*sys.argv[1:])
