"""Answers are the same in any batch, and are kept as they come."""

import json

import pytest
import torch

from tests.conftest import make_model, write_jsonl
from tuition.conversation import Message
from tuition.errors import UserError
from tuition.evaluate.answers import answer_all, answer_book, weights_digest
from tuition.evaluate.generate import generate
from tuition.evaluate.heldout import score_examples
from tuition.evaluate.load import load_answerer
from tuition.evaluate.marks import examine
from tuition.evaluate.testset import read_test_set

PROMPTS = [([Message("user", "go on " * (n % 4) + f"with {n}")], ()) for n in range(12)]


@pytest.mark.parametrize("family", ["llama", "qwen3", "mistral", "gemma2", "phi3", "gpt2"])
def test_a_batch_answers_as_one_prompt_alone_would(tmp_path, family):
    answerer = load_answerer(str(make_model(tmp_path, family=family)), device="cpu")
    model, renderer = answerer.loaded.model, answerer.renderer
    single = [generate(model, renderer, [p], max_new_tokens=12, batch_size=1)[0] for p in PROMPTS]
    for batch_size in (1, 7, 64):
        assert generate(model, renderer, PROMPTS, max_new_tokens=12, batch_size=batch_size) == single


@pytest.fixture
def answerer(llama):
    return load_answerer(str(llama), device="cpu")


def test_a_model_that_transformers_cannot_answer_with_is_named(answerer, monkeypatch):
    def broken(*args, **kwargs):
        raise ValueError("its cache knows no lengths")

    model = answerer.loaded.model
    monkeypatch.setattr(type(model), "prepare_inputs_for_generation", broken)
    with pytest.raises(UserError, match=r"cannot answer with LlamaForCausalLM \(its cache knows no lengths"):
        generate(model, answerer.renderer, PROMPTS, max_new_tokens=2, batch_size=4)


@pytest.fixture
def trained_on(answerer, rows, tmp_path_factory):
    """A model, and ten rows with their answers."""
    file = write_jsonl(tmp_path_factory.mktemp("rows") / "rows.jsonl", rows[:10])
    return answerer, read_test_set((str(file),), limit=None)


def test_an_interrupted_evaluation_goes_on_where_it_stopped(answerer, tmp_path, monkeypatch):
    whole = answer_all(answerer, PROMPTS, None, max_new_tokens=5)

    def stop(done):
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        answer_all(answerer, PROMPTS, tmp_path, max_new_tokens=5, on_answer=stop)
    (file,) = tmp_path.iterdir()
    kept = len(file.read_text().splitlines()) - 1
    assert 4 <= kept < 12
    asked = []

    def counting(model, renderer, prompts, **options):
        asked.extend(prompts)
        return generate(model, renderer, prompts, **options)

    monkeypatch.setattr("tuition.evaluate.answers.generate", counting)
    progress = []
    assert answer_all(answerer, PROMPTS, tmp_path, max_new_tokens=5, on_answer=progress.append) == whole
    assert len(asked) == 12 - kept
    assert (progress[0], progress[-1]) == (kept, 12)
    assert answer_all(answerer, PROMPTS, tmp_path, max_new_tokens=5) == whole
    assert len(asked) == 12 - kept, "the third call asks nothing"


def test_an_interrupted_loss_goes_on_where_it_stopped_and_is_the_same_to_the_bit(
    trained_on, tmp_path, monkeypatch
):
    monkeypatch.setattr("tuition.evaluate.marks._KEPT_TOGETHER", 4)
    answerer, test_set = trained_on

    def examined(folder, on_progress=lambda *_: None):
        return examine(
            answerer, test_set, metrics=(), max_new_tokens=1, on_progress=on_progress, answers_folder=folder
        )

    def stop(name, done, total):
        if done >= 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        examined(tmp_path, stop)
    (file,) = tmp_path.iterdir()
    assert len(file.read_text().splitlines()) == 1 + 2, "eight of ten stand there"
    scored = []

    def counting(loaded, examples, **options):
        scored.extend(examples)
        return score_examples(loaded, examples, **options)

    monkeypatch.setattr("tuition.evaluate.marks.score_examples", counting)
    assert examined(tmp_path) == examined(None)
    assert len(scored) == 2 + 10, "and are not scored again"


def test_other_settings_or_weights_have_other_answers(answerer, tmp_path):
    answer_all(answerer, PROMPTS[:2], tmp_path, max_new_tokens=5)
    answer_all(answerer, PROMPTS[:2], tmp_path, max_new_tokens=6)
    assert len(list(tmp_path.iterdir())) == 2
    before = weights_digest(answerer.loaded.model)
    weight = answerer.loaded.model.get_output_embeddings().weight
    with torch.no_grad():
        first, second = weight[0].clone(), weight[1].clone()
        weight[0], weight[1] = second, first
    assert weights_digest(answerer.loaded.model) != before, "two rows changed places"
    with torch.no_grad():
        weight[0], weight[1] = first, second
    assert weights_digest(answerer.loaded.model) == before


def test_a_line_that_was_cut_off_is_answered_again(answerer, tmp_path):
    given = answer_all(answerer, PROMPTS[:3], tmp_path, max_new_tokens=4)
    (file,) = tmp_path.iterdir()
    settings = json.loads(file.read_text().splitlines()[0])
    settings.pop("fingerprint")
    file.write_text(file.read_text()[:-9])
    assert len(answer_book(tmp_path, settings).found) == 2
    assert answer_all(answerer, PROMPTS[:3], tmp_path, max_new_tokens=4) == given
    assert len(answer_book(tmp_path, settings).found) == 3


def test_equal_prompts_are_answered_once(answerer, tmp_path):
    given = answer_all(answerer, [PROMPTS[0]] * 3, tmp_path, max_new_tokens=4)
    assert given[0] == given[1] == given[2]
    (file,) = tmp_path.iterdir()
    assert len(file.read_text().splitlines()) == 2
