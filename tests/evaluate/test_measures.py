"""From the name of a metric to what measures it."""

import json

import pytest

from tuition.errors import UserError
from tuition.evaluate.measures import find_metric, find_metrics, split_names


def worth(name, answer, expected="", row=None):
    return find_metric(name).measure(answer, expected, row or {})


def test_several_metrics_are_separated_by_commas_except_within_a_pattern():
    assert split_names("number, contains") == ["number", "contains"]
    assert split_names("number,regex:a{1,2},b") == ["number", "regex:a{1,2},b"]
    assert [m.name for m in find_metrics(["number", "f1", "number"])] == ["number", "f1"]


def test_a_pattern_compares_its_last_match_on_both_sides():
    name = r"regex:answer is \(?([A-D])"
    assert worth(name, "First answer is (B), no: the answer is C.", "answer is C") == 1
    assert worth(name, "the answer is B", "the answer is C") == 0
    assert worth(name, "C", "the answer is C") == 0, "no match in the answer"
    assert worth(name, "C", "C") == 0, "no match in the expected text"
    assert worth(r"regex:\d{2}", "12 then 34", "34") == 1, "without a group, the whole match"
    with pytest.raises(UserError, match="pattern cannot be read"):
        find_metric("regex:(")


def test_json_is_valid_or_not():
    assert worth("json", ' {"a": [1, null]}\n') == 1
    for text in ("", "{'a': 1}", "NaN", "```json\n{}\n```", '{"a": 1} and more', "[" * 100_000):
        assert worth("json", text) == 0


def test_a_schema_is_met_by_json_that_it_allows(tmp_path):
    pytest.importorskip("jsonschema")
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps({"type": "object", "required": ["name"]}))
    assert worth(f"json_schema:{schema}", '{"name": 1}') == 1
    assert worth(f"json_schema:{schema}", '{"nome": 1}') == 0
    assert worth(f"json_schema:{schema}", "name") == 0
    schema.write_text('{"type": "no such type"}')
    with pytest.raises(UserError, match="is no JSON schema"):
        find_metric(f"json_schema:{schema}")


@pytest.mark.parametrize(("name", "package"), [("chrf", "sacrebleu"), ("json_schema:x", "jsonschema")])
def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch, name, package):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(UserError, match=rf"needs the package {package}.*tuition\[metrics\]"):
        find_metric(name)


def test_translations_are_scored_as_sacrebleu_does():
    sacrebleu = pytest.importorskip("sacrebleu")
    answers, expected = ["the cat sat on a mat", "a dog"], ["the cat sat on the mat", "the dog barks"]
    for name, corpus in (("chrf", sacrebleu.corpus_chrf), ("bleu", sacrebleu.corpus_bleu)):
        metric = find_metric(name)
        assert metric.corpus(answers, expected) == pytest.approx(corpus(answers, [expected]).score / 100)
        assert metric.measure(expected[0], expected[0], {}) == pytest.approx(1)
    assert worth("chrf", "a dog", "the dog barks") == pytest.approx(
        sacrebleu.sentence_chrf("a dog", ["the dog barks"]).score / 100
    )


def test_an_own_function_sees_answer_expectation_and_row(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "def grade(answer, expected, row):\n    return len(answer) * row['factor'] + (answer == expected)\n"
    )
    assert worth(f"python:{file}:grade", "abc", "abc", {"factor": 2}) == 7


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def other(): pass", "has no function 'grade'"),
        ("import nothing_of_the_kind", "cannot be imported"),
        ("def grade(a, b, c): return 1 / 0", "failed on the answer 'x'"),
        ("def grade(a, b, c): return float('nan')", "returned nan"),
    ],
)
def test_a_faulty_own_function_is_named_with_its_file(tmp_path, code, message):
    file = tmp_path / "mine.py"
    file.write_text(code)
    with pytest.raises(UserError, match=message) as caught:
        worth(f"python:{file}:grade", "x")
    assert caught.value.where == str(file)


def test_an_own_metric_names_file_and_function():
    with pytest.raises(UserError, match="names no function"):
        find_metric("python:mine.py")
    with pytest.raises(UserError, match="cannot be read"):
        find_metric("python:nowhere.py:grade")
