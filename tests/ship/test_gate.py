"""Nothing is called exported before a fresh process has read it and answered alike; planted faults are named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import tuition
from tuition.errors import UserError
from tuition.recipe import load_recipe
from tuition.ship import export as ship
from tuition.ship import gate, written
from tuition.ship.gate import RoundTrip
from tuition.train.tokenizerfiles import readable_by_version_4


@pytest.fixture
def tampered(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Path], None]], None]:
    """Have a fault planted in what was written, before it is read."""

    def plant(fault: Callable[[Path], None]) -> None:
        for name in ("write_model_folder", "write_adapter_folder"):
            honest = getattr(ship, name)

            def write(*args, honest=honest, **options) -> None:  # type: ignore[no-untyped-def]
                honest(*args, **options)
                fault(next(a for a in args if isinstance(a, Path)))

            monkeypatch.setattr(ship, name, write)

    return plant


def refused(run: tuition.Run, to: Path, match: str, format: str = "hf") -> None:
    with pytest.raises(UserError, match=match):
        run.export(to, format=format)
    assert not to.exists()
    assert list(to.parent.iterdir()) == []


@pytest.mark.parametrize("place", ["model", "adapter/merged", "checkpoints/step-99"])
def test_nothing_is_exported_into_the_folders_that_a_run_keeps_its_own_files_in(
    lora_run: tuition.Run, place: str
) -> None:
    name = place.split("/")[0]
    with pytest.raises(UserError, match=rf"{name}/ is what the run run keeps .* such as run-exported"):
        lora_run.export(lora_run.path / place)
    assert not (lora_run.path / place).exists()


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("kind", ["full", "lora", "tied"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_honest_export_passes_and_says_what_was_confirmed(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, dtype: str
) -> None:
    run = request.getfixturevalue(f"{kind}_run")
    said: list[str] = []
    tuition.api.export(str(run.path), tmp_path / "out", dtype=dtype, on_checked=said.append)
    assert "4 of 4 greedy answers the same" in said[0] or dtype == "bfloat16"
    assert (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.fresh
def test_a_process_of_its_own_answers_twenty_prompts_alike(lora_run: tuition.Run, tmp_path: Path) -> None:
    said: list[str] = []
    tuition.api.export(str(lora_run.path), tmp_path / "out", on_checked=said.append)
    assert "20 of 20 greedy answers the same" in said[0]


@pytest.mark.fresh
def test_a_process_of_its_own_refuses_an_adapter_that_learned_otherwise(
    lora_run: tuition.Run, tmp_path: Path, tampered: Callable[..., None]
) -> None:
    tampered(lambda folder: edit_json(folder / "adapter_config.json", use_rslora=True))
    refused(lora_run, tmp_path / "out", r"layer 0; adapter_config.json says use_rslora: True", "adapter")


def test_an_adapter_passes_too(lora_run: tuition.Run, tmp_path: Path) -> None:
    said: list[str] = []
    tuition.api.export(str(lora_run.path), tmp_path / "out", format="adapter", on_checked=said.append)
    assert "4 of 4 greedy answers the same" in said[0]


def test_the_tokenizer_of_an_unchanged_vocabulary_is_the_base_s_and_read_by_version_4_too(
    full_run: tuition.Run, llama: Path, tmp_path: Path
) -> None:
    out = full_run.export(tmp_path / "out")
    assert (out / "tokenizer.json").read_bytes() == (llama / "tokenizer.json").read_bytes()
    assert json.loads((llama / "tokenizer_config.json").read_text())["tokenizer_class"] == "TokenizersBackend"
    said = json.loads((out / "tokenizer_config.json").read_text())
    assert said["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert not {"backend", "extra_special_tokens"} & said.keys()
    assert said["model_input_names"] == ["input_ids", "attention_mask"]


def test_a_configuration_that_version_5_did_not_write_stays_as_it_is() -> None:
    said = {"tokenizer_class": "Qwen2Tokenizer", "extra_special_tokens": {"image": "<i>"}, "backend": "x"}
    assert readable_by_version_4(said) == said


@pytest.mark.parametrize("format", ["hf", "adapter"])
def test_a_missing_stop_token_is_refused_by_name(
    lora_run: tuition.Run, tmp_path: Path, tampered: Callable[..., None], format: str
) -> None:
    tampered(lambda folder: edit_json(folder / "generation_config.json", eos_token_id=2))
    refused(
        lora_run, tmp_path / "out", r"generation_config.json: the stop token <\|end\|> .* is missing", format
    )


def test_a_wrong_chat_template_is_refused_by_name(
    full_run: tuition.Run, tmp_path: Path, tampered: Callable[..., None]
) -> None:
    def swap(folder: Path) -> None:
        file = folder / "chat_template.jinja"
        file.write_text(file.read_text().replace("<|end|>\n", "<|end|>"))

    tampered(swap)
    refused(
        full_run, tmp_path / "out", r"chat_template.jinja: it is not the chat template that training used"
    )


def test_a_missing_chat_template_is_refused_by_name(
    full_run: tuition.Run, tmp_path: Path, tampered: Callable[..., None]
) -> None:
    tampered(lambda folder: (folder / "chat_template.jinja").unlink())
    refused(
        full_run, tmp_path / "out", r"chat_template.jinja: the chat template that training used is missing"
    )


def test_an_untied_head_is_refused_by_name(
    tied_run: tuition.Run, tmp_path: Path, tampered: Callable[..., None]
) -> None:
    def untie(folder: Path) -> None:
        edit_json(folder / "config.json", tie_word_embeddings=False)
        tensors = load_file(folder / "model.safetensors")
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    tampered(untie)
    refused(tied_run, tmp_path / "out", r"config.json: the head \(lm_head\) is untied from the embeddings")


def test_a_head_tied_that_was_its_own_is_refused_by_name(
    lora_run: tuition.Run, tmp_path: Path, tampered: Callable[..., None]
) -> None:
    def tie(folder: Path) -> None:
        edit_json(folder / "config.json", tie_word_embeddings=True)
        tensors = load_file(folder / "model.safetensors")
        del tensors["lm_head.weight"]
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    tampered(tie)
    refused(lora_run, tmp_path / "out", r"config.json: the head \(lm_head\) is tied to the embeddings")


def test_a_lora_merged_at_the_wrong_scale_is_refused_by_its_scale(
    lora_run: tuition.Run, tmp_path: Path, tampered: Callable[..., None]
) -> None:
    base = load_file(Path(load_recipe(lora_run.path / "recipe.yaml").model) / "model.safetensors")

    def twice(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        save_file(
            {name: base[name] + 2 * (tensor - base[name]) for name, tensor in tensors.items()},
            folder / "model.safetensors", metadata={"format": "pt"},
        )  # fmt: skip

    tampered(twice)
    refused(
        lora_run,
        tmp_path / "out",
        r"layer 0; the adapter was merged at 2 times its scale: first model.layers.0",
    )


def test_an_adapter_written_with_another_scale_is_refused_by_name(
    lora_run: tuition.Run, tmp_path: Path, tampered: Callable[..., None]
) -> None:
    tampered(lambda folder: edit_json(folder / "adapter_config.json", lora_alpha=1))
    refused(lora_run, tmp_path / "out", r"layer 0; adapter_config.json says lora_alpha: 1", "adapter")


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_base_weights_exported_instead_of_tuned_are_refused_by_name(
    request: pytest.FixtureRequest, tmp_path: Path, tampered: Callable[..., None], kind: str
) -> None:
    run = request.getfixturevalue(f"{kind}_run")
    base = Path(load_recipe(run.path / "recipe.yaml").model)
    tampered(lambda folder: shutil.copyfile(base / "model.safetensors", folder / "model.safetensors"))
    refused(run, tmp_path / "out", r"tensors are the base model's, not the tuned ones: first model\.")


def drop_merges(folder: Path) -> None:
    said = json.loads((folder / "tokenizer.json").read_text())
    said["model"]["merges"] = []
    (folder / "tokenizer.json").write_text(json.dumps(said))


def rename_a_token(folder: Path) -> None:
    """A token that no probe contains: only the whole vocabulary shows it."""
    said = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = said["model"]["vocab"]
    vocabulary["ĀĀ"] = vocabulary.pop(max(vocabulary, key=vocabulary.__getitem__))
    said["model"]["merges"] = said["model"]["merges"][:-1]
    (folder / "tokenizer.json").write_text(json.dumps(said))


def widen_a_stop(folder: Path) -> None:
    """Spaces after the stop token would be swallowed: ids of the probes stay as they are."""
    said = json.loads((folder / "tokenizer.json").read_text())
    next(token for token in said["added_tokens"] if token["content"] == "<|end|>")["rstrip"] = True
    (folder / "tokenizer.json").write_text(json.dumps(said))


@pytest.mark.parametrize("fault", [drop_merges, widen_a_stop])
def test_an_altered_tokenizer_file_is_refused_by_name(
    full_run: tuition.Run, tmp_path: Path, tampered: Callable[..., None], fault: Callable[[Path], None]
) -> None:
    tampered(fault)
    refused(full_run, tmp_path / "out", r"tokenizer.json: it differs from the base model's")


@pytest.mark.parametrize(
    ("fault", "said"),
    [(drop_merges, "it gives other token ids"), (rename_a_token, "its tokens are not those")],
)
def test_a_tokenizer_that_was_written_anew_must_be_that_of_training(
    full_run: tuition.Run, tmp_path: Path, tampered: Callable[..., None], monkeypatch: pytest.MonkeyPatch,
    fault: Callable[[Path], None], said: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(written, "tokenizer_source", lambda answerer: None)  # as where tokens were added
    tampered(fault)
    refused(full_run, tmp_path / "out", f"tokenizer.json: {said}")


@pytest.mark.parametrize("name", ["tokenizer_config.json", "generation_config.json", "model.safetensors"])
def test_a_missing_file_is_refused_by_name(
    full_run: tuition.Run, tmp_path: Path, tampered: Callable[..., None], name: str
) -> None:
    tampered(lambda folder: (folder / name).unlink())
    refused(full_run, tmp_path / "out", f"{name}: is missing")


def in_two_shards(folder: Path) -> list[Path]:
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for shard, held in shards.items():
        save_file({name: tensors[name] for name in held}, folder / shard, metadata={"format": "pt"})
    weight_map = {name: shard for shard, held in shards.items() for name in held}
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()
    return [folder / shard for shard in shards]


def test_a_missing_shard_is_refused_by_name(
    full_run: tuition.Run, tmp_path: Path, tampered: Callable[..., None]
) -> None:
    tampered(lambda folder: in_two_shards(folder)[1].unlink())
    refused(
        full_run,
        tmp_path / "out",
        r"model-00002-of-00002.safetensors: this shard is missing, with \d+ tensors",
    )


def test_a_shard_without_one_of_its_tensors_is_refused_by_name(
    full_run: tuition.Run, tmp_path: Path, tampered: Callable[..., None]
) -> None:
    def lose_one(folder: Path) -> None:
        shard = in_two_shards(folder)[0]
        tensors = load_file(shard)
        del tensors["lm_head.weight"]
        save_file(tensors, shard, metadata={"format": "pt"})

    tampered(lose_one)
    refused(
        full_run,
        tmp_path / "out",
        r"model-00001-of-00002.safetensors: 1 tensor is missing .* lm_head.weight",
    )


def test_weights_in_another_dtype_are_refused_by_name(
    full_run: tuition.Run, tmp_path: Path, tampered: Callable[..., None]
) -> None:
    def halve(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        tensors["model.norm.weight"] = tensors["model.norm.weight"].half()
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    tampered(halve)
    refused(
        full_run, tmp_path / "out",
        r"model.safetensors: model.norm.weight is stored in float16, and the export is of float32",
    )  # fmt: skip


def test_a_configuration_that_says_another_dtype_is_refused_by_name(
    full_run: tuition.Run, tmp_path: Path, tampered: Callable[..., None]
) -> None:
    tampered(lambda folder: edit_json(folder / "config.json", dtype="bfloat16"))
    refused(full_run, tmp_path / "out", r"config.json: it says dtype: bfloat16, and the weights .* float32")


def test_a_folder_that_cannot_be_loaded_is_refused(
    full_run: tuition.Run, tmp_path: Path, tampered: Callable[..., None]
) -> None:
    tampered(lambda folder: edit_json(folder / "config.json", model_type="no-such-model"))
    refused(full_run, tmp_path / "out", r"a fresh process cannot load what was written \(.*no-such-model")


def test_weights_that_are_no_safetensors_are_refused_by_name(
    full_run: tuition.Run, tmp_path: Path, tampered: Callable[..., None]
) -> None:
    tampered(lambda folder: (folder / "model.safetensors").write_bytes(b"{}"))
    refused(full_run, tmp_path / "out", r"model.safetensors: cannot be read")


def test_an_answer_may_part_only_at_a_tie(full_run: tuition.Run) -> None:
    answerer = tuition.api.load(str(full_run.path))
    expected = gate.expect(answerer)
    said = {"answers": [[*answer[:-1], 3] for answer in expected.answers], "gaps": [1e-6] * 4}
    gate._check_answers(Path("out"), said, expected, 1e-4)
    with pytest.raises(UserError, match=r"its greedy answer to .* differs"):
        gate._check_answers(Path("out"), said | {"gaps": [1e-6, 0.2, 0.0, 0.0]}, expected, 1e-4)


def test_the_sentence_counts() -> None:
    assert RoundTrip(1e-6, 4, 3, 2, 1e-4).sentence.endswith(
        "logits within 1e-06 (bound 0.0001), 3 of 4 greedy answers the same, 2 stopped by themselves"
    )
