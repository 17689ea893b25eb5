"""The embedded starter: its facts, who is held out, and that its files are what the demo relies on."""

import json
from functools import cache

import pytest

from tuition.starter import BASE, DEMONSTRATIONS, GENERAL, HELDOUT
from tuition.starter.facts import french_phrases, groups, short_sentences, table
from tuition.starter.texts import Texts, any_of_these_words, make_texts
from tuition.starter.world import RELATIONS, declarations, every_fact, instructions

MEGABYTE = 1_000_000


@cache
def texts() -> Texts:
    return make_texts()


@cache
def tokenizer():
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(BASE)


def exchanges(path) -> list[tuple[str, str]]:
    rows = [json.loads(line)["messages"] for line in path.read_text(encoding="utf-8").splitlines()]
    assert all([message["role"] for message in row] == ["user", "assistant"] for row in rows)
    return [(row[0]["content"], row[1]["content"]) for row in rows]


def test_the_world_has_a_thousand_facts_in_ten_relations():
    assert len(RELATIONS) >= 10
    assert sum(1 for _ in every_fact()) >= 1000


def test_a_table_refuses_an_entity_that_stands_twice():
    with pytest.raises(ValueError, match="stands twice"):
        table("France: Paris; Spain: Madrid; France: Lyon")
    with pytest.raises(ValueError, match="stands twice"):
        groups(mammal="bat, cat", bird="owl, bat")


def test_a_colour_agrees_with_its_french_noun():
    assert french_phrases()["a white house"] == "une maison blanche"
    assert french_phrases()["a white cat"] == "un chat blanc"


def test_a_short_sentence_keeps_who_and_did_what():
    for sentence, short in short_sentences().items():
        the, person, did = sentence.split()[:3]
        assert short == f"{the} {person} {did}."


def test_the_stored_texts_are_those_that_the_code_makes():
    assert exchanges(DEMONSTRATIONS) == texts().demonstrations
    assert exchanges(HELDOUT) == texts().heldout
    assert GENERAL.read_text(encoding="utf-8").splitlines() == texts().general


def test_every_heldout_question_has_the_answer_that_the_world_gives():
    answers = {
        question: relation.facts[entity]
        for relation, entity in every_fact()
        for question in instructions(relation, entity)
    }
    assert all(answers[question] == answer for question, answer in exchanges(HELDOUT))


def test_every_relation_is_held_out_and_demonstrated():
    for relation in RELATIONS:
        asked = {question for entity in relation.facts for question in instructions(relation, entity)}
        assert any(question in asked for question, _answer in exchanges(HELDOUT))
        assert any(question in asked for question, _answer in exchanges(DEMONSTRATIONS))


def test_no_heldout_entity_stands_in_any_demonstration():
    heldout = any_of_these_words(texts().heldout_entities)
    mentions = [exchange for exchange in exchanges(DEMONSTRATIONS) if heldout.search("\n".join(exchange))]
    assert mentions == []


def test_every_heldout_question_asks_about_a_heldout_entity():
    heldout = any_of_these_words(texts().heldout_entities)
    assert all(heldout.search(question) for question, _answer in exchanges(HELDOUT))


def test_no_question_stands_in_the_pretraining_text():
    pretraining = "\n".join(texts().pretraining)
    asked = exchanges(DEMONSTRATIONS) + exchanges(HELDOUT)
    assert [question for question, _answer in asked if question in pretraining] == []


def test_no_question_is_asked_twice():
    asked = [question for question, _answer in exchanges(DEMONSTRATIONS) + exchanges(HELDOUT)]
    assert len(set(asked)) == len(asked)


def test_the_general_sentences_are_not_in_the_pretraining_text():
    assert set(texts().general).isdisjoint(texts().pretraining)


def test_every_fact_is_stated_in_many_wordings():
    pretraining = set(texts().pretraining)
    assert min(len(pretraining.intersection(declarations(*fact))) for fact in every_fact()) >= 12


def test_the_folder_is_at_most_twelve_megabytes():
    files = [path for path in BASE.parent.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert sum(path.stat().st_size for path in files) <= 12 * MEGABYTE


@pytest.mark.parametrize(
    "text", ["What is the capital of Iceland?", " Chișinău ", "  two  spaces\n\ttab", "日本語 🙂", ""]
)
def test_the_tokenizer_gives_back_every_text(text):
    ids = tokenizer().encode(text, add_special_tokens=False)
    assert tokenizer().decode(ids, clean_up_tokenization_spaces=False) == text


def test_pad_is_not_the_token_that_ends_a_turn():
    assert tokenizer().eos_token == "<|end|>"
    assert tokenizer().pad_token_id != tokenizer().eos_token_id
    generation = json.loads((BASE / "generation_config.json").read_text())
    config = json.loads((BASE / "config.json").read_text())
    assert generation["eos_token_id"] == config["eos_token_id"] == tokenizer().eos_token_id


def test_the_template_renders_every_role_and_changes_no_content():
    messages = [
        {"role": "system", "content": " Be brief. "},
        {"role": "user", "content": "Hello!\n"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "Who wrote Emma?"},
        {"role": "assistant", "content": "Jane Austen"},
    ]
    assert tokenizer().apply_chat_template(messages, tokenize=False) == (
        "<|system|>  Be brief. <|end|><|user|> Hello!\n<|end|><|assistant|> Hello!<|end|>"
        "<|user|> Who wrote Emma?<|end|><|assistant|> Jane Austen<|end|>"
    )


def test_the_generation_prompt_begins_the_whole_rendering():
    for question, answer in exchanges(DEMONSTRATIONS):
        asked = [{"role": "user", "content": question}]
        answered = [*asked, {"role": "assistant", "content": answer}]
        prompt = tokenizer().apply_chat_template(asked, add_generation_prompt=True)["input_ids"]
        whole = tokenizer().apply_chat_template(answered)["input_ids"]
        assert whole[: len(prompt)] == prompt
        assert whole[len(prompt) :] == [*tokenizer().encode(" " + answer), tokenizer().eos_token_id]


def test_the_base_loads_and_completes_what_it_was_pretrained_on():
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    prompt = tokenizer()("It is well known that the capital of France is", return_tensors="pt")
    answered = model.generate(prompt.input_ids, max_new_tokens=1, do_sample=False)
    assert tokenizer().decode(answered[0, -1]) == " Paris"


def test_no_stored_file_names_a_machine_path():
    for path in [*BASE.glob("*.json"), BASE / "chat_template.jinja", DEMONSTRATIONS, HELDOUT, GENERAL]:
        content = path.read_text(encoding="utf-8")
        assert all(folder not in content for folder in ("/home/", "/tmp/", "/root/", "/work/", "/Users/"))
