"""A model folder of a stranger: refused by file name, at once, with nothing run, written or asked of the network."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import shutil
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tuition
from tests.conftest import make_model
from tests.security.bounds import refused_in_bounds
from tuition import api
from tuition.errors import UserError
from tuition.render.modelfolder import open_model
from tuition.train.adapterfolder import read_adapter


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("sound"))


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return shutil.copytree(sound, tmp_path / "model")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def change(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**content, **changes}))


class Bomb:
    def __reduce__(self) -> Any:
        return (os.system, ("touch EXECUTED",))


def pickles_only(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))


def code(folder: Path, body: str = "open('EXECUTED', 'w')") -> None:
    (folder / "modeling_evil.py").write_text(f"{body}\n")


def config_code(folder: Path) -> None:
    change(folder / "config.json", auto_map={"AutoConfig": "modeling_evil.Evil"}, model_type="evil")
    code(folder)


def tokenizer_code(folder: Path) -> None:
    change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["modeling_evil.Evil", None]})
    code(folder)


def generation_code(folder: Path) -> None:
    change(folder / "generation_config.json", custom_generate="owner/name")


def code_of_another_repository(folder: Path) -> None:
    change(folder / "config.json", auto_map={"AutoModelForCausalLM": "evil/repo--modeling.Evil"})


def hub_kernel(folder: Path) -> None:
    change(folder / "config.json", attn_implementation="kernels-community/flash-attn3")


def nested_kernel(folder: Path) -> None:
    change(folder / "config.json", text_config={"_attn_implementation": {"": "evil/kernel"}})


def quantised(folder: Path) -> None:
    change(folder / "config.json", quantization_config={"quant_method": "mxfp4"})


def sharded(folder: Path, name: str) -> None:
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    names = {"lm_head.weight": name}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))


def link_outside(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "outside.safetensors")
    (folder / "model.safetensors").symlink_to(folder.parent / "outside.safetensors")


def template_outside(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    (folder / "chat_template.jinja").symlink_to("/etc/hostname")


def header(folder: Path, length: int, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", length) + content)


def overlapping(folder: Path) -> None:
    entry = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
    text = json.dumps({"a": entry, "b": entry}).encode()
    header(folder, len(text), text + b"\0" * 16)


def fifo(folder: Path) -> None:
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")


HOSTILE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "only a pickle": (pickles_only, "pytorch_model.bin: is a pickle"),
    "code in config.json": (config_code, "config.json: asks to run code"),
    "code in tokenizer_config.json": (tokenizer_code, "tokenizer_config.json: asks to run code"),
    "code in generation_config.json": (generation_code, "generation_config.json: asks to run code"),
    "code of another repository": (code_of_another_repository, "code of another repository"),
    "an attention kernel of the hub": (hub_kernel, "asks for a kernel from the hub"),
    "a kernel in a nested part": (nested_kernel, "asks for a kernel from the hub"),
    "quantised weights": (quantised, "quantised"),
    "an index that climbs out": (lambda f: sharded(f, "../x.safetensors"), r"index.json: names '../x"),
    "an index with an absolute path": (lambda f: sharded(f, "/tmp/x.safetensors"), "index.json: names"),
    "an index of pickles": (lambda f: sharded(f, "x.bin"), "index.json: names"),
    "an index of what is missing": (lambda f: sharded(f, "x.safetensors"), "x.safetensors: is missing"),
    "weights by another name": (
        lambda f: change(f / "config.json", transformers_weights="../x.safetensors"),
        "point outside",
    ),
    "a link out of the folder": (link_outside, "points outside the model folder"),
    "a template that is a link": (template_outside, "points outside the model folder"),
    "a pipe": (fifo, "config.json: is not a regular file"),
    "a header of a terabyte": (lambda f: header(f, 1 << 40, b"{}"), "header would be"),
    "a header that is no JSON": (lambda f: header(f, 8, b"{" * 8), "is damaged"),
    "a header nested deep": (lambda f: header(f, 200_000, b"[" * 200_000), "is damaged"),
    "overlapping tensors": (overlapping, "is damaged"),
    "a vocabulary of 10^12": (lambda f: change(f / "config.json", vocab_size=10**12), "vocab_size is 10"),
    "a vocabulary of 10^9": (lambda f: change(f / "config.json", vocab_size=10**9), "asks for"),
    "a negative size": (lambda f: change(f / "config.json", hidden_size=-32), "a size is not negative"),
    "a million layers": (lambda f: change(f / "config.json", num_hidden_layers=10**6), "layers"),
    "900 layers": (lambda f: change(f / "config.json", num_hidden_layers=900), "the weights hold"),
    "wide layers": (lambda f: change(f / "config.json", intermediate_size=10**8), "asks for"),
    "a billion labels": (lambda f: change(f / "config.json", num_labels=10**9), "num_labels"),
    "a million rotations": (
        lambda f: change(f / "config.json", rope_scaling={"rope_type": "longrope", "short_factor": [1] * 10**6}),
        "short_factor lists 1,000,000 values",
    ),
    "a token that is none": (
        lambda f: change(f / "generation_config.json", eos_token_id="x"),
        "eos_token_id is x, which is no token",
    ),
    "a configuration nested deep": (
        lambda f: (f / "config.json").write_text('{"a":' * 10**5 + "1" + "}" * 10**5),
        "config.json: is nested too deep",
    ),
    "a configuration that is a list": (lambda f: (f / "config.json").write_text("[]"), "no JSON object"),
    "a configuration that is no text": (lambda f: (f / "config.json").write_bytes(b"\xff\0"), "cannot be read"),
    "a tokenizer nested deep": (
        lambda f: (f / "tokenizer.json").write_text("[" * 10**5),
        "tokenizer.json: is nested too deep",
    ),
    "a tokenizer of nothing": (lambda f: (f / "tokenizer.json").write_text("{}"), "no tokenizer can be loaded"),
    "a normalizer that explodes": (
        lambda f: change(
            f / "tokenizer.json",
            normalizer={
                "type": "Sequence",
                "normalizers": [{"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}] * 40,
            },
        ),
        "times as long",
    ),
    "an adapter in the model folder": (
        lambda f: change(f / "adapter_config.json", base_model_name_or_path="evil/base"),
        "adapter",
    ),
}  # fmt: skip


@pytest.mark.parametrize("symptom", HOSTILE)
def test_a_hostile_model_folder_is_refused_by_file_name(
    symptom: str, folder: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil, said = HOSTILE[symptom]
    spoil(folder)
    monkeypatch.chdir(tmp_path)
    with refused_in_bounds(tmp_path), pytest.raises(UserError, match=said) as refusal:
        tuition.train(model=str(folder), data=str(data), output_dir=str(tmp_path / "run"), max_steps=1)
    assert refusal.value.next_step


@pytest.mark.parametrize("symptom", ["code in config.json", "only a pickle", "a vocabulary of 10^9"])
def test_no_other_command_opens_what_train_refuses(symptom: str, folder: Path, data: Path) -> None:
    spoil, said = HOSTILE[symptom]
    spoil(folder)
    with pytest.raises(UserError, match=said):
        api.load(str(folder))
    with pytest.raises(UserError, match=said):
        tuition.evaluate(str(folder), str(data), metric=None)


@pytest.mark.parametrize("symptom", ["code in tokenizer_config.json", "a normalizer that explodes"])
def test_commands_that_read_only_the_tokenizer_refuse_it_too(
    symptom: str, folder: Path, data: Path, tmp_path: Path
) -> None:
    spoil, said = HOSTILE[symptom]
    spoil(folder)
    with pytest.raises(UserError, match=said):
        api.check(str(data), model=str(folder))
    with pytest.raises(UserError, match=said):
        list(api.preview(str(data), str(folder)))
    with pytest.raises(UserError, match=said):
        api.prepare(str(data), model=str(folder), to=tmp_path / "prepared")


GROWING = "{% set ns = namespace(l=[]) %}{% for i in range(9999) %}{% set ns.l = ns.l + ['a' * 900000 ~ i] %}{% endfor %}"
WIDE = "{{ '{:>1000000000}'.format('a') }}"
ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{{ 'x' * 9999 }}{% endfor %}{% endfor %}"
ESCAPE = "{{ ''.__class__.__mro__[1].__subclasses__() }}"


@pytest.mark.parametrize("template", [ENDLESS, ESCAPE, GROWING, WIDE])
def test_a_hostile_template_in_the_folder_rejects_every_row(
    template: str, folder: Path, data: Path, tmp_path: Path
) -> None:
    (folder / "chat_template.jinja").write_text(template)
    data.write_text(data.read_text() * 20)  # so many rows that a bound for each would take long
    with refused_in_bounds(tmp_path):
        kept = api.check(str(data), model=str(folder)).ledger.kept
    assert kept == 0
    with refused_in_bounds(tmp_path), pytest.raises(UserError, match="can be learned from"):
        tuition.train(model=str(folder), data=str(data), output_dir=str(tmp_path / "run"), max_steps=1)


def test_pickles_beside_safetensors_are_left_unread_and_the_opening_screen_says_so(
    folder: Path, data: Path, tmp_path: Path
) -> None:
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    opening = api.dry_run(model=str(folder), data=str(data), output_dir=str(tmp_path / "run"), max_steps=1)
    assert any("pytorch_model.bin" in warning and "pickle" in warning for warning in opening.warnings)
    assert not Path("EXECUTED").exists()


def test_a_program_that_nothing_names_is_left_unread(folder: Path) -> None:
    code(folder)
    assert api.load(str(folder))
    assert not Path("EXECUTED").exists()


# --- code that is trusted ---

MODELING = """
from transformers import LlamaConfig, LlamaForCausalLM
class OwnConfig(LlamaConfig):
    model_type = "own"
class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""


def own_code(folder: Path) -> None:
    names = {"AutoConfig": "modeling_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnModel"}
    change(folder / "config.json", auto_map=names, model_type="own")
    (folder / "modeling_own.py").write_text(MODELING)


def test_code_is_run_only_where_the_refusal_was_pasted_into_the_recipe(
    folder: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    own_code(folder)
    settings = {"model": str(folder), "data": str(data), "output_dir": str(tmp_path / "run"), "max_steps": 1}
    with pytest.raises(UserError) as refusal:
        api.dry_run(**settings)
    trust = re.search(r"trust_remote_code: (\S+:[0-9a-f]{64})", str(refusal.value))
    assert trust is not None
    assert trust[1].startswith(f"{folder}@sha256:")
    assert api.dry_run(**settings, trust_remote_code=trust[1])
    with pytest.raises(UserError, match="asks to run code"):
        api.load(str(folder))
    assert api.load(str(folder), trust_remote_code=trust[1]).trusted
    (folder / "modeling_own.py").write_text(MODELING + "# changed\n")
    with pytest.raises(UserError, match="which is not this code"):
        api.dry_run(**settings, trust_remote_code=trust[1])


@pytest.mark.parametrize("value", ["true", "name", "name@main", "name@" + "a" * 39, "x@sha256:12"])
def test_code_is_never_trusted_without_a_commit_or_a_sum(value: str) -> None:
    with pytest.raises(UserError, match="trust_remote_code"):
        tuition.recipe.make_recipe({"model": "m", "data": "d", "trust_remote_code": value})


# --- models of the hub, from its cache ---


def cached(folder: Path, cache: Path) -> str:
    """Lay a folder into a hub cache as if it had been downloaded; its commit."""
    commit = "a" * 40
    home = cache / "models--owner--name"
    (home / "blobs").mkdir(parents=True)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(commit)
    snapshot = home / "snapshots" / commit
    snapshot.mkdir(parents=True)
    for file in folder.iterdir():
        shutil.copyfile(file, home / "blobs" / file.name)
        (snapshot / file.name).symlink_to(Path("../../blobs") / file.name)
    return commit


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import huggingface_hub._snapshot_download as download
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(download.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_a_model_of_the_hub_is_looked_at_like_a_folder(folder: Path, offline: Path) -> None:
    cached(folder, offline)
    assert api.load("owner/name").loaded.model is not None


def test_a_snapshot_of_the_hub_s_cache_is_read_by_its_path_too(folder: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "hub" / "models--owner--name" / "snapshots" / cached(folder, tmp_path / "hub")
    link, within = tmp_path / "link", snapshot / "part"
    link.symlink_to(snapshot)
    within.mkdir()
    for file in snapshot.iterdir():
        if file != within:
            (within / file.name).symlink_to(Path("../../../blobs") / file.name)
    for named in (snapshot, link, within):
        assert open_model(str(named), weights=True).path == named


def local_dir(snapshot: Path, place: Path) -> Path:
    """A folder as `--local-dir` lays it: small files themselves, and a link to the blob of a large one."""
    shutil.copytree(snapshot, place)
    weights = place / "model.safetensors"
    blob = snapshot.parents[1] / "blobs" / hashlib.sha256(weights.read_bytes()).hexdigest()
    blob.write_bytes(weights.read_bytes())
    weights.unlink()
    weights.symlink_to(blob)
    return place


def test_a_folder_whose_links_lead_into_one_repository_of_a_hub_s_cache_is_read(
    folder: Path, tmp_path: Path
) -> None:
    snapshot = tmp_path / "hub" / "models--owner--name" / "snapshots" / cached(folder, tmp_path / "hub")
    place = local_dir(snapshot, tmp_path / "local")
    assert open_model(str(place), weights=True).path == place
    assert api.load(str(place)).loaded.model is not None


@pytest.mark.parametrize("to", ["two repositories", "a file that no hash names", "no cache"])
def test_a_folder_whose_links_lead_anywhere_else_is_refused(to: str, folder: Path, tmp_path: Path) -> None:
    cache, other = tmp_path / "hub", tmp_path / "other"
    place = local_dir(cache / "models--owner--name" / "snapshots" / cached(folder, cache), tmp_path / "local")
    target = (place / "model.safetensors").resolve()
    if to == "two repositories":
        second = other / "models--owner--other" / "blobs" / ("b" * 40)
        second.parent.mkdir(parents=True)
        second.write_text((place / "config.json").read_text())
        (place / "config.json").unlink()
        (place / "config.json").symlink_to(second)
    else:
        named = target.with_name("weights") if to.endswith("names") else tmp_path / "blobs" / target.name
        named.parent.mkdir(exist_ok=True)
        target.rename(named)
        (place / "model.safetensors").unlink()
        (place / "model.safetensors").symlink_to(named)
    with pytest.raises(UserError, match="points outside the model folder"):
        open_model(str(place), weights=True)


@pytest.mark.parametrize(
    "to", ["another repository", "its blobs lie elsewhere", "a blob leads out", "no cache"]
)
def test_a_snapshot_whose_files_lead_out_of_its_repository_is_refused(
    to: str, folder: Path, tmp_path: Path
) -> None:
    cache, other = tmp_path / "hub", tmp_path / "other"
    home = cache / "models--owner--name"
    snapshot = home / "snapshots" / cached(folder, cache)
    config = snapshot / "config.json"
    if to == "another repository":
        cached(folder, other)
        config.unlink()
        config.symlink_to(other / "models--owner--name" / "blobs" / "config.json")
    elif to == "its blobs lie elsewhere":
        (home / "blobs").rename(other)
        (home / "blobs").symlink_to(other)
    elif to == "a blob leads out":
        shutil.copyfile(config, other)
        (home / "blobs" / "config.json").unlink()
        (home / "blobs" / "config.json").symlink_to(other)
    else:
        home = home.rename(cache / "owner--name")
        snapshot = home / "snapshots" / snapshot.name
    with pytest.raises(UserError, match="points outside the model folder"):
        open_model(str(snapshot))


def test_code_of_the_hub_is_trusted_by_its_commit(
    folder: Path, offline: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    own_code(folder)
    commit = cached(folder, offline)
    settings = {"model": "owner/name", "data": str(data), "output_dir": str(tmp_path / "run"), "max_steps": 1}
    with pytest.raises(UserError, match=f"trust_remote_code: owner/name@{commit}"):
        api.dry_run(**settings)
    assert api.dry_run(**settings, trust_remote_code=f"owner/name@{commit}")


# --- adapters ---


@pytest.fixture(scope="module")
def adapter(sound: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    place = tmp_path_factory.mktemp("adapter")
    model = AutoModelForCausalLM.from_pretrained(sound)
    get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear")).save_pretrained(
        place
    )
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(sound / name, place / name)
    change(place / "adapter_config.json", base_model_name_or_path=str(sound))
    return place


ADAPTERS: dict[str, tuple[dict[str, Any], str]] = {
    "a module to import": ({"megatron_config": {"a": 1}, "megatron_core": "this"}, "megatron_config"),
    "a library to import": ({"auto_mapping": {"parent_library": "antigravity"}}, "auto_mapping"),
    "a pickle as cache": ({"corda_config": {"cache_file": "/tmp/x.pt"}}, "corda_config"),
    "layers again and again": ({"layer_replication": [[0, 10**6]]}, "layer_replication"),
    "a pattern without end": ({"target_modules": "(a+)+b"}, "can take forever"),
    "a pattern that is none": ({"target_modules": "("}, "no regular expression"),
    "a rank of 10^9": ({"r": 10**9}, "rank|r is"),
    "another kind": ({"peft_type": "XLORA"}, "XLORA"),
    "no base": ({"base_model_name_or_path": None}, "names no base model"),
    "a base that is a list": ({"base_model_name_or_path": ["x"]}, "names no base model"),
    "code": ({"auto_map": {"AutoModel": "evil.Evil"}}, "asks to run code"),
}


@pytest.mark.parametrize("symptom", ADAPTERS)
def test_a_hostile_adapter_is_refused(symptom: str, adapter: Path, tmp_path: Path) -> None:
    changes, said = ADAPTERS[symptom]
    folder = shutil.copytree(adapter, tmp_path / "adapter")
    change(folder / "adapter_config.json", **changes)
    with pytest.raises(UserError, match=said):
        api.load(str(folder))


@pytest.mark.parametrize("symptom", ["only a pickle", "code in config.json", "a vocabulary of 10^9"])
def test_an_adapter_over_a_hostile_base_is_refused(
    symptom: str, adapter: Path, folder: Path, tmp_path: Path
) -> None:
    spoil, said = HOSTILE[symptom]
    spoil(folder)
    copy = shutil.copytree(adapter, tmp_path / "adapter")
    change(copy / "adapter_config.json", base_model_name_or_path=str(folder))
    with pytest.raises(UserError, match=said):
        api.load(str(copy))


def test_a_pickled_adapter_is_refused_by_name(adapter: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(adapter, tmp_path / "adapter")
    (copy / "adapter_model.safetensors").unlink()
    (copy / "adapter_model.bin").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UserError, match=r"adapter_model\.bin: is a pickle"):
        api.load(str(copy))


def test_ordinary_adapters_are_read(adapter: Path, tmp_path: Path) -> None:
    assert api.load(str(adapter)).adapted
    copy = shutil.copytree(adapter, tmp_path / "adapter")
    change(copy / "adapter_config.json", target_modules=r"^(?!.*visual).*\.(?:self_attn|mlp)\.[a-z]_proj$")
    assert read_adapter(copy)


# --- the package itself ---


def test_no_call_in_the_package_loads_code_or_pickles() -> None:
    package = Path(tuition.__file__).parent
    for path in package.rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        assert not re.search(r"\bimport (pickle|dill|cloudpickle|joblib)\b|torch\.load\(", source), path
        for call in re.finditer(r"\.from_pretrained\(", source):
            if path.parent.name == "starter":  # reads what the script itself wrote a moment before
                continue
            if path.name == "card.py":  # text for the reader of a model card; nothing is called
                continue
            arguments = source[call.end() : call.end() + 400]
            arguments = arguments[: arguments.index("\n    ")] if "\n    " not in arguments[:5] else arguments
            assert "local_files_only=True" in arguments or "**opened.arguments" in arguments, (
                path,
                arguments,
            )
            if "Model" in source[call.start() - 25 : call.start()]:
                assert "use_safetensors=True" in arguments, (path, arguments)
