"""A judge behind a real HTTP server on this machine."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.patience import PATIENCE_SECONDS
from tuition.errors import UserError
from tuition.evaluate.compare import Answer
from tuition.evaluate.judge import KEY_VARIABLE, Judge, ask, judge_pairs, make_judge, preference_in


class Server:
    """Answers chat completions by a function of the text; `failures` come first."""

    def __init__(self, decide):
        self.decide, self.failures, self.asked, self.keys = decide, [], [], []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.keys.append(self.headers.get("Authorization"))
                outer.asked.append((self.path, body))
                if outer.failures:
                    self.send_response(outer.failures.pop(0))
                    self.send_header("Location", "http://127.0.0.1:9/elsewhere")
                    self.send_header("Retry-After", "0")
                    self.end_headers()
                    return
                reply = outer.decide(body["messages"][0]["content"])
                text = (
                    reply
                    if isinstance(reply, bytes)
                    else json.dumps(completion_of(body["model"], reply)).encode()
                )
                self.send_response(200)
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()
        self.judge = Judge(f"http://127.0.0.1:{self.http.server_port}/v1", "wise", seconds=PATIENCE_SECONDS)


def completion_of(model, reply):
    message = {"role": "assistant", "content": reply, "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    usage = {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [choice],
        "usage": usage,
    }


@pytest.fixture
def serve():
    servers = []

    def start(decide):
        servers.append(Server(decide))
        return servers[-1]

    yield start
    for server in servers:
        server.http.shutdown()
        server.http.server_close()


def pairs(count, base="bad", tuned="good"):
    return [Answer(f"question {n}", "good", base, tuned, f"held.jsonl:{n}") for n in range(count)]


def prefers_good(text):
    first = text.partition("[answer A]\n")[2].startswith("good")
    return f"It is right. VERDICT: {'A' if first else 'B'}"


def test_a_preference_that_survives_the_exchange_counts(serve):
    server = serve(prefers_good)
    found = judge_pairs(server.judge, pairs(12), None)
    assert (found.wins, found.losses, found.ties, found.verdict) == (12, 0, 0, "better")
    assert len(server.asked) == 24
    path, body = server.asked[0]
    assert (path, body["model"], body["temperature"]) == ("/v1/chat/completions", "wise", 0)
    worse = judge_pairs(server.judge, pairs(12, base="good", tuned="bad"), None)
    assert (worse.losses, worse.verdict) == (12, "worse")


def test_a_judge_that_likes_what_stands_first_decides_nothing(serve):
    found = judge_pairs(serve(lambda text: "VERDICT: A").judge, pairs(12), None)
    assert (found.ties, found.order_decided, found.score.value, found.verdict) == (12, 12, 0.5, "not decided")


def test_ties_and_replies_without_a_verdict_are_counted(serve):
    tied = judge_pairs(serve(lambda text: "Both. **Verdict:** tie").judge, pairs(3), None)
    assert (tied.ties, tied.order_decided, tied.unreadable) == (3, 0, 0)
    mute = judge_pairs(serve(lambda text: "I cannot say").judge, pairs(3), None)
    assert (mute.ties, mute.unreadable) == (3, 6)


def test_equal_answers_are_a_tie_unasked(serve):
    server = serve(prefers_good)
    assert judge_pairs(server.judge, pairs(2, base="good"), None).ties == 2
    assert server.asked == []


def test_the_last_verdict_of_a_reply_counts():
    assert preference_in("At first VERDICT: A, but no.\nVERDICT: **B**") == "second"
    assert preference_in("A verdict is hard") == "unreadable"


def test_trouble_that_passes_is_waited_for(serve):
    server = serve(prefers_good)
    server.failures = [429, 503]
    assert judge_pairs(server.judge, pairs(1), None).wins == 1
    assert len(server.asked) == 4


@pytest.mark.parametrize("status", [401, 404, 302])
def test_a_refusal_or_a_redirect_ends_at_once_and_never_shows_the_key(serve, status, monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, "sk-secret")
    server = serve(prefers_good)
    server.failures = [status] * 9
    with pytest.raises(UserError, match=f"HTTP {status}") as caught:
        ask(server.judge, "?")
    assert len(server.asked) == 1
    assert "sk-secret" not in str(caught.value)


def test_nobody_there_is_an_error_within_the_time():
    judge = Judge("http://127.0.0.1:9/v1", "wise", seconds=0.6)
    with pytest.raises(UserError, match="the judge gave no answer"):
        ask(judge, "?")


def test_what_is_no_chat_completion_is_said(serve):
    with pytest.raises(UserError, match="not that of a chat completion"):
        ask(serve(lambda text: b"<html>").judge, "?")


def test_verdicts_are_kept_and_the_key_is_not(serve, tmp_path, monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, "sk-secret")
    server = serve(prefers_good)
    judge_pairs(server.judge, pairs(3), tmp_path)
    assert set(server.keys) == {"Bearer sk-secret"}
    kept = (tmp_path / "judge.jsonl").read_text()
    assert len(kept.splitlines()) == 6
    assert "sk-secret" not in kept
    (tmp_path / "judge.jsonl").write_text(kept[:-20])  # the machine stopped within the last line
    assert judge_pairs(server.judge, pairs(4), tmp_path).wins == 4
    assert len(server.asked) == 6 + 1 + 2


def test_a_judge_needs_url_and_model():
    assert make_judge(None, None) is None
    with pytest.raises(UserError, match="needs a URL and a model"):
        make_judge("http://x/v1", None)
