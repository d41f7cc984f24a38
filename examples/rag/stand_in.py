"""A stand-in for a language model: answers with the first words of the passage that fits best.

It speaks `/v1/chat/completions` as far as nearer asks, knows nothing, costs nothing, and gives the
same answer every time.  Start it with `python stand_in.py 8088`, and put your own endpoint into
nearer.yaml when you are done trying.
"""

from __future__ import annotations

import json
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

WORDS = 14  # of an answer
WORD = re.compile(r"\w+")
PASSAGE = re.compile(r"\[passage \d+ (\w+)\]\n(.*?)\n\[end of passage \d+ \1\]", re.DOTALL)
QUESTION = re.compile(r"\[question \w+\]\n(.*)", re.DOTALL)
GRADE = re.compile(r"GRADE (\w+): correct")


def words(text: str) -> list[str]:
    return WORD.findall(text.lower())


def overlap(first: str, second: str) -> float:
    """F1 of the different words of two texts."""
    one, other = set(words(first)), set(words(second))
    common = len(one & other)
    return 2 * common / (len(one) + len(other)) if common else 0.0


def answer(asked: str) -> str:
    """The first words of the passage that shares most of the question's words."""
    found = QUESTION.search(asked)
    question = set(words(found[1] if found else asked))
    best, most = "", 1
    for _, passage in PASSAGE.findall(asked):
        shared = len(question & set(words(passage)))
        if shared > most:
            best, most = passage, shared
    return " ".join(best.split()[:WORDS]) or "NO ANSWER"


def grade(asked: str, code: str) -> str:
    """Correct where the answer shares half of its words with a reference."""
    references = re.findall(rf"\[reference {code}\]\n(.*)", asked)
    given = re.search(rf"\[answer {code}\]\n(.*?)\n\[end of answer {code}\]", asked, re.DOTALL)
    text = given[1] if given else ""
    right = any(overlap(text, reference) >= 0.5 for reference in references)
    return f"GRADE {code}: {'correct' if right else 'incorrect'}"


def reply(body: dict[str, Any]) -> str:
    asked = body["messages"][-1]["content"]
    codes = GRADE.findall(asked)
    return grade(asked, codes[-1]) if codes else answer(asked)


def completion(body: dict[str, Any]) -> dict[str, Any]:
    """What `/chat/completions` answers."""
    text = reply(body)
    sent = sum(len(words(message["content"])) for message in body["messages"])
    usage = {"prompt_tokens": sent, "completion_tokens": len(words(text))}
    message = {"role": "assistant", "content": text}
    return {"choices": [{"index": 0, "message": message}], "usage": usage}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        payload = json.dumps(completion(body)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *_: Any) -> None: ...


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8088
    print(f"http://127.0.0.1:{port}/v1")
    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
