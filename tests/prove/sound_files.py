"""Sound inputs of every parser, small enough that any part of them may be the one that is damaged."""

from __future__ import annotations

from tests.conftest import CHAT

ROWS = [
    {"prompt": "a", "completion": "b"},
    {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "weight": 1, "group": "g"},
    {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
    {"instruction": "a", "input": "b", "output": "c", "id": "7"},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}, {"role": "assistant", "content": "",
     "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}}]},
     {"role": "tool", "content": "x", "tool_call_id": "1"}, {"role": "assistant", "content": "b"}],
     "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]},
]  # fmt: skip
RECIPE = (
    b"# a comment\nmodel: starter\ndata: [a.jsonl, b.jsonl]\nepochs: 3\nlearning_rate: 2e-4\nmax_length: auto\n"
    b"target_modules: [q_proj, v_proj]\nmethod: lora\nval_split: 0.05\nseed: 0\ntemplate_date: 2026-01-31\noutput_dir: out\n"
    b"mapping: {prompt: question, completion: answer}\nspan_markers: ['<a>', '</a>']\n"
)
TEMPLATES = [
    CHAT,
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ m.content | trim }}{% else %}{% generation %}"
    "{{ m['content'] }}{% endgeneration %}{% endif %}{% endfor %}",
    "{% macro f(x) %}{{ x.content ~ '' }}{% endmacro %}{% set ns = namespace(a=1) %}{% for m in messages %}"
    "{% set ns.a = ns.a + 1 %}{{ f(m) }}{{ loop.index0 }}{% endfor %}{{ tools | tojson }}{{ strftime_now('%Y') }}",
]
FACTS = {
    "name": "run", "command": "tuition train", "working_folder": ".", "started": "2026-01-31T00:00:00+00:00",
    "status": "finished", "versions": {"python": "3.11"}, "hardware": {"device": "cpu", "cores": 2}, "hashes": {"data": "aa"},
    "model": {"name": "m", "parameters": 10, "trainable_parameters": 10, "method": "full", "dtype": "float32", "new_tokens": []},
    "data": {"rows_in": 10, "kept": 9, "rejected": 1, "left_out": 0, "truncated": 0, "examples": 9, "tokens": 90,
             "learned_tokens": 40, "longest_tokens": 12, "length_histogram": {"edges": [0, 5, 12], "counts": [4, 5]}},
    "plan": {"steps": 4, "epochs": 2.0, "batch_size": 2, "steps_per_epoch": 2}, "seconds": 3.0,
    "proof": [{"name": "stop", "ok": True, "detail": "all end"}],
    "result": {"step": 4, "tokens": 90, "seconds": 2.0, "best_step": 2, "best_eval_loss": 1.5, "tokens_per_second": 45.0},
}  # fmt: skip
METRICS = [
    {"step": n, "loss": 2.0 / n, "learning_rate": 1e-4, "grad_norm": 0.5, "tokens": 9} for n in (1, 2, 3, 4)
]
METRICS += [{"step": 2, "eval_loss": 1.5, "eval_bits_per_byte": 0.9, "eval_tokens": 12}]
RUN = {
    "run.json": FACTS,
    "metrics": METRICS,
    "ledger": [{"file": "d.jsonl", "line": 1, "fate": "kept", "tokens": 9}, {"file": "d", "line": 2, "fate": "rejected",
               "code": "D004", "reason": "no answer"}],
    "findings": [{"code": "D004", "severity": "error", "file": "d", "line": 2, "message": "m", "fix": "f"}],
    "samples": [{"file": "d", "line": 1, "prompt": "p", "expected": "e", "base": "b", "tuned": "t"}],
    "example.json": {"file": "d", "line": 1, "tokens": [{"text": "a", "supervised": 1.0, "special": False}]},
    "evaluation.json": {"comparisons": [{"metric": "exact_match", "base": {"score": 0.1, "low": 0, "high": 1, "count": 9},
                        "tuned": {"score": 0.5, "low": 0, "high": 1, "count": 9}, "pairs": []}]},
    "recipe.yaml": {"model": "m", "data": ["d"], "seed": 7, "max_length": 12, "output_dir": "run"},
}  # fmt: skip
ADAPTER = {
    "peft_type": "LORA", "base_model_name_or_path": "b", "revision": None, "r": 8, "lora_alpha": 16, "task_type": "CAUSAL_LM",
    "target_modules": ["q_proj", "v_proj"], "rank_pattern": {"q_proj": 4}, "exclude_modules": "(a|b).*c", "auto_mapping": None,
}  # fmt: skip
ASSIGNMENTS = [
    "learning_rate=2e-4", "max_length=auto", "data=[a.jsonl, b.jsonl]", "mapping={prompt: question, completion: answer}",
    "span_markers=['<a>', '</a>']", "seed = 7", "revision=main", "lora_r=16",
]  # fmt: skip
MAPPINGS = [{"prompt": "q", "completion": "a", "system": "s"}, {"messages": "m", "id": "i"}, {"text": "a"}]
CONDITIONS = [
    "exact_match>=baseline+0.05 and loss<=1.2", "forgetting<=2%", "perplexity < baseline - 10 %", "judge>.5", "f1>=1e-3",
]  # fmt: skip
REQUEST = {
    "model": "m", "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "a"}]}],
    "max_tokens": 7, "stop": ["x", "y"], "temperature": 0.5, "top_p": 0.9, "seed": 3, "stream": True,
    "stream_options": {"include_usage": True}, "n": 1, "user": "u", "logit_bias": {}, "response_format": {"type": "text"},
}  # fmt: skip
REQUEST_HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nOrigin: http://127.0.0.1:PORT\r\n"
    b"Content-Type: application/json\r\nContent-Length: LENGTH\r\nConnection: close\r\n\r\n"
)
REPLY = {
    "id": "1", "object": "chat.completion", "model": "m", "choices": [{"index": 0, "finish_reason": "stop",
     "message": {"role": "assistant", "content": "Both say it. Verdict: A"}}], "usage": {"total_tokens": 9},
}  # fmt: skip
JOB = {
    "command": "tuition train r.yaml",
    "pid": 4194303,
    "born": "1",
    "started": "2026-01-31T00:00:00+00:00",
    "code": 0,
}
SCHEMA = {
    "type": "object", "required": ["a"], "properties": {"a": {"type": "integer", "minimum": 0}, "b": {"pattern": "^x+$"}},
    "$defs": {"c": {"enum": [1, "x"]}}, "anyOf": [{"$ref": "#/$defs/c"}, {"additionalProperties": True}],
}  # fmt: skip
TEXT = b"One paragraph of general text,\non two lines.\n\nAnother \xc3\xa9 one.\n\n\nAnd the last.\n"
LINES = {
    "answers": [{"fingerprint": "aa", "max_new_tokens": 9}, {"prompt": "aa", "text": "t", "tokens": 3, "stopped": True}],
    "prompts": [{"prompts": ["0123456789abcdef", "fedcba9876543210"]}, {"prompts": []}],
    "general": [{"examples": [{"place": ["d", 1, 0], "prompt": "p", "text_bytes": 9,
                 "marks": {"nats": 1.5, "weight": 3.0, "tokens": 3, "hits": 1}}], "rows_in": 2, "left": 1}],
}  # fmt: skip
