"""The real `openai` client against the endpoint: a run, an adapter and a model folder answer as they do here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest

import tuition
from tests.conftest import ask_one_reader
from tuition.ship.server import Server

PROMPTS = [f"What is {n} and {n * n % 7}?" for n in range(10)]  # fifty: python -m tests.prove.served


@pytest.fixture(scope="module")
def models(
    full_run: tuition.Run,
    lora_run: tuition.Run,
    tmp_path_factory: pytest.TempPathFactory,
    one_reader: Callable[..., str | None],
) -> dict[str, tuple[Any, Any]]:
    """For each way to name a model: what is served, and the run in this process that it must answer like."""
    runs = {"full": full_run, "lora": lora_run}
    here = {name: tuition.api.load(str(run.path), device="cpu") for name, run in runs.items()}
    out = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        ask_one_reader(patch, one_reader)
        full = full_run.export(out / "full")
        merged = lora_run.export(out / "merged")
    named = {
        "run": (str(full_run.path), "full"), "folder": (str(full), "full"),
        "adapter": (str(lora_run.path / "adapter"), "lora"), "merged": (str(merged), "lora"),
    }  # fmt: skip
    return {name: (tuition.api.load(path, device="cpu"), here[run]) for name, (path, run) in named.items()}


@pytest.fixture(scope="module")
def client(models: dict[str, tuple[Any, Any]]) -> Iterator[openai.OpenAI]:
    served = {name: answerer for name, (answerer, _) in models.items()}
    server = Server(served, host="127.0.0.1", port=0, api_key="a-key")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    with openai.OpenAI(base_url=f"{server.address}/v1", api_key="a-key", max_retries=0) as client:
        yield client
    server.shutdown()
    server.server_close()
    thread.join()


def ask(client: openai.OpenAI, model: str, prompt: str = PROMPTS[0], **more: Any) -> Any:
    messages: Any = [{"role": "user", "content": prompt}]
    return client.chat.completions.create(model=model, messages=messages, **{"max_tokens": 12, **more})


@pytest.mark.parametrize("model", ["run", "folder", "adapter", "merged"])
def test_answers_are_those_of_this_process_streamed_or_not(
    client: openai.OpenAI, models: dict[str, tuple[Any, Any]], model: str
) -> None:
    for prompt in PROMPTS:
        here = tuition.api.answer(models[model][1], prompt, max_new_tokens=12)
        whole = ask(client, model, prompt)
        assert whole.choices[0].message.content == here.text
        assert whole.choices[0].finish_reason == ("stop" if here.stopped else "length")
        assert whole.usage.completion_tokens == here.tokens
        chunks = list(ask(client, model, prompt, stream=True, stream_options={"include_usage": True}))
        pieces = [c.choices[0].delta.content or "" for c in chunks if c.choices]
        assert "".join(pieces) == here.text
        assert chunks[-1].usage.completion_tokens == here.tokens


def test_the_client_lists_the_models_and_finds_one_by_its_name(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["run", "folder", "adapter", "merged"]
    assert client.models.retrieve("adapter").owned_by == "tuition"
    with pytest.raises(openai.NotFoundError) as refusal:
        client.models.retrieve("gpt-4")
    assert refusal.value.code == "model_not_found"


def test_errors_reach_the_client_as_openai_s_own(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        ask(client, "gpt-4")
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as unsupported:
        ask(client, "run", n=2)
    assert (unsupported.value.code, unsupported.value.param) == ("unsupported_value", "n")
    with pytest.raises(openai.BadRequestError) as too_long:
        ask(client, "run", "x" * 5000)
    assert too_long.value.code == "context_length_exceeded"
    with pytest.raises(openai.AuthenticationError) as stranger:
        client.with_options(api_key="wrong").models.list()
    assert stranger.value.code == "invalid_api_key"
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="run", input="text")
