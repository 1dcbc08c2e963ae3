"""Code -> one line that says what it does: how a model is asked, and what of its answer is kept."""

from __future__ import annotations

import re

QUESTION = "Say in one short sentence what this code does. Answer with that sentence only.\n\n```\n{code}\n```"
"""What a model that follows instructions is asked."""
EXAMPLES = """\
Code:
def area(width, height):
    return width * height
Summary: Returns the area of a rectangle.

Code:
SELECT COUNT(*) FROM orders WHERE paid = 0;
Summary: Counts the orders that are not paid.

"""
"""A model that only goes on with text learns the task from two examples, Brown et al., https://arxiv.org/abs/2005.14165."""
STOP = ("\n",)
"""Where a model that goes on with text has said it."""

_FENCE = re.compile(r"^(```|~~~)")
_LABEL = re.compile(
    r"^(?:(?:here is|here's|sure|certainly)\b[^:]{0,60}:|(?:one[- ]line |short |code )?summary *:|answer *:)",
    re.IGNORECASE,
)
_SUBJECT = re.compile(
    r"^(?:this|the)(?: given| following| above| provided)?(?: \w+)??"
    r" (?:code|function|method|class|script|query|snippet|program|module) (?=\w+s\b)",
    re.IGNORECASE,
)
_MARK = re.compile(r"^(?:[-*+•>#]+ |\d{1,2}[.)] )")
_SENTENCE = re.compile(r"(?<=[.!?。！？])(?<!\be\.g\.)(?<!\bi\.e\.)(?<!\betc\.)(?<!\bvs\.) (?=\S)")
_PAIRS = ('""', "''", "``", "“”", "‘’", "«»", "**", "__")
_TAIL = " \t,;:-–—#"


def message(code: str) -> list[dict[str, str]]:
    """The conversation that asks for a summary of `code`."""
    return [{"role": "user", "content": QUESTION.format(code=code.strip("\n"))}]


def prompt(code: str) -> str:
    """The text whose next line is a summary of `code`."""
    return f"{EXAMPLES}Code:\n{code.strip(chr(10))}\nSummary:"


def one_line(answer: str) -> str:
    """The first sentence of `answer`, without fences, labels, quotes and odd ends; empty when nothing is left.

    At most one line, and applied to its own result it changes nothing.
    """
    lines = (" ".join(line.split()) for line in answer.splitlines())
    # A line of which nothing is left, such as "Summary:", only announces the next one.
    return next((bare for line in lines if not _FENCE.match(line) and (bare := _bare(line))), "")


def _bare(line: str) -> str:
    """`line` after as many turns as something still comes off; each turn that goes on makes it shorter."""
    while True:
        shorter = _turn(line)
        if len(shorter) >= len(line):
            return _capital(line)
        line = shorter


def _turn(line: str) -> str:
    line = _LABEL.sub("", _MARK.sub("", _FENCE.sub("", line.strip()).strip()), count=1).strip()
    line = _SUBJECT.sub("", line, count=1)
    if len(line) > 1 and (line[0] + line[-1] in _PAIRS):
        line = line[1:-1]
    return _SENTENCE.split(line, maxsplit=1)[0].rstrip(_TAIL).strip()


def _capital(line: str) -> str:
    raised = line[:1].upper() + line[1:]
    # A letter such as ß grows when it is raised; and what is code or a name stays as it is.
    return raised if len(raised) == len(line) and re.match(r"^[^\W\d_]+\s", line) else line
