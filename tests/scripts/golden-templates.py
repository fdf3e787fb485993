#!/usr/bin/env python3
"""Writes tests/golden/templates/rendered.json: what `transformers` makes of each conversation by each template.

Templates are the `.jinja` files beside it (and the engine's own fallback for Gemma 3), conversations are in `chats.json`.
What a template refuses is written as its own words. Arguments are folders of further templates: their results are printed,
not kept. Needs `pip install transformers jinja2`; run from the repository root.
"""

import datetime
import json
import pathlib
import sys

import jinja2
from transformers.utils.chat_template_utils import _compile_jinja_template

GOLDEN = pathlib.Path("tests/golden/templates")
NOW = datetime.datetime(2026, 3, 5, 14, 7, 9)
BOS, EOS = "<|endoftext|>", "<|im_end|>"


def render(template, chat):
    try:
        return {"text": _compile_jinja_template(template).render(
            messages=chat["messages"], tools=chat.get("tools"), documents=None,
            add_generation_prompt=chat.get("add_generation_prompt", True), bos_token=BOS, eos_token=EOS,
            strftime_now=NOW.strftime, **chat.get("variables", {}))}
    except (jinja2.exceptions.UndefinedError, TypeError) as failed:
        return {"failed": type(failed).__name__}
    except jinja2.exceptions.TemplateError as refused:
        return {"refused": str(refused)}


def all_of(paths, chats):
    return {path.stem: {name: render(path.read_text(), chat) for name, chat in chats.items()} for path in sorted(paths)}


def main():
    chats = json.loads((GOLDEN / "chats.json").read_text())
    own = pathlib.Path("node/src/real/text/gemma3.jinja")
    rendered = all_of([own, *GOLDEN.glob("*.jinja")], chats)
    (GOLDEN / "rendered.json").write_text(json.dumps(rendered, ensure_ascii=False, indent=1) + "\n")
    for folder in map(pathlib.Path, sys.argv[1:]):
        json.dump(all_of(folder.glob("*.jinja"), chats), sys.stdout, ensure_ascii=False, indent=1)


if __name__ == "__main__":
    main()
