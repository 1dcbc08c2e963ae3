"""How a zero-shot classifier looks to a user's type checker; nothing runs it."""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

import numpy as np
import numpy.typing as npt

from modelkit import model
from modelkit.tasks.zero_shot_classification import Classifier, Options, Scored, Text


def classifies_texts(folder: Path) -> None:
    classifier: Classifier = model.load(folder)
    assert_type(classifier.classify("a text", ["sports", "politics"]), list[Scored])
    assert_type(classifier.classify(["a text"], ("sports",), multi_label=True), list[list[Scored]])
    assert_type(classifier.classify("a text", ["sports"])[0].score, float)
    assert_type(classifier.outputs(["premise\nhypothesis"], batch_size=8), npt.NDArray[np.float32])
    assert_type(classifier.width, int)


def refuses_wrong_arguments(classifier: Classifier) -> None:
    classifier.classify("a text", [1])  # type: ignore[list-item]
    classifier.classify(["a text"], ["sports"], True)  # type: ignore[call-overload]
    Options(multi_label="yes")  # type: ignore[arg-type]
    Text(max_tokens="5")  # type: ignore[arg-type]
