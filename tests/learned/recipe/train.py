"""Teaches the four models of `tests/learned/models`. Needs torch and transformers 4.57; one thread is faster than two.

PYTHONPATH=src python tests/learned/recipe/train.py [NAME ...]
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from learned.recipe import subjects

MODELS = Path(__file__).parents[1] / "models"


@dataclass(frozen=True)
class Course:
    """How long and how fast a model learns; `answers` is how many held-out answers are asked for at the end."""

    steps: int
    batch: int
    rate: float
    answers: int = 300


COURSES = {
    "t5-summaries": Course(800, 32, 2e-3),
    "llama-summaries": Course(900, 24, 3e-3),
    "llama-files": Course(250, 16, 3e-3, 100),
    "deberta-entailment": Course(700, 48, 1e-3),
}


def main() -> None:
    """Entry point: the models that are named, else all."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for name in sys.argv[1:] or COURSES:
        started = time.monotonic()
        teach(name, subjects.SUBJECTS[name](), COURSES[name])
        print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)


def teach(name: str, subject: subjects.Subject, course: Course) -> None:
    """Train one model, write its folder, and print how many held-out answers the written files give rightly."""
    torch.manual_seed(0)
    model = subject.model().train()
    print(f"{name}: {sum(p.numel() for p in model.parameters())} parameters", flush=True)
    learn(model, subject.batches(course.batch), course)
    folder = MODELS / name
    folder.mkdir(parents=True, exist_ok=True)
    # Weights are stored as real repositories have them: in 16 bits.
    model.to(subject.dtype).save_pretrained(folder)
    subject.write_companions(folder)
    written = type(model).from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        right = subject.right_answers(written, course.answers)
    print(f"{name}: {right} of {course.answers} held-out answers are right", flush=True)


def learn(model: Any, batches: Iterator[dict[str, Any]], course: Course) -> None:
    """AdamW (arXiv:1711.05101) with a warm-up and a cosine down to zero."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=course.rate, betas=(0.9, 0.98), weight_decay=0.01)
    warm = course.steps // 20
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * step / course.steps))
    )
    for step in range(course.steps):
        loss = model(**next(batches)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 50 == 0 or step == course.steps - 1:
            print(f"  step {step}: loss {loss.item():.4f}", flush=True)


if __name__ == "__main__":
    main()
