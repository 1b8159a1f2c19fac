"""The answers to a study, and what people preferred."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from difflate.errors import ConfigError, FormatError, VersionError
from difflate.evaluate.study import ANSWERS_VERSION, QUESTIONS
from difflate.seeds import Stream, numpy_generator

FORMAT = "difflate-answers"
MAX_BYTES = 1 << 26
RESAMPLES = 2000
_Z = 1.959963984540054  # of the normal distribution, two-sided 95 %


@dataclass(frozen=True)
class Answer:
    """One pair that somebody decided."""

    image: str
    chosen: str
    """The codec."""
    other: str
    on_left: bool
    """Whether the chosen picture was on the left."""
    ms: float
    """From the pictures' appearance to the answer."""


@dataclass(frozen=True)
class Answers:
    """What one person answered, as the page wrote it."""

    path: Path
    report: str
    """`Results.digest` of the report that the study is of."""
    question: str
    session: str
    trials: int
    """How many pairs there were to decide."""
    answers: Sequence[Answer]


@dataclass(frozen=True)
class Preference:
    """How often one codec's picture was taken instead of another's of equal bytes."""

    codec: str
    against: str
    chosen: int
    answers: int
    images: int
    wilson: tuple[float, float]
    """95 % interval of the share if each answer were independent of the others (Wilson 1927)."""
    bootstrap: tuple[float, float] | None
    """95 % interval of the share for other images than these: percentiles of 2000 samples of the images with all their
    answers; None for one image."""

    @property
    def share(self) -> float:
        return self.chosen / self.answers


def read_answers(path: str | Path) -> Answers:
    """The answers in a file that a study's page wrote.

    Raises ConfigError where there is none, VersionError for another version, FormatError for a file that is cut,
    damaged or something else.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); name the answers that a study's page saved"
        ) from error
    if len(data) > MAX_BYTES:
        raise FormatError(f"{path}: has more than {MAX_BYTES >> 20} MiB; it is no answers of a study")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: is not complete JSON; save the answers again from the study's page") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise FormatError(f"{path}: is no answers of a study; name the file that the study's page saved")
    if content.get("version") != ANSWERS_VERSION:
        raise VersionError(
            f"{path}: has version {content.get('version')} of answers, this difflate reads version {ANSWERS_VERSION}; "
            "use the difflate that made the study"
        )
    try:
        answers = [_answer(item) for item in content["answers"]]
        found = Answers(
            path, str(content["report"]), content["question"], str(content["session"]), int(content["trials"]), answers
        )
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise FormatError(f"{path}: is damaged; save the answers again from the study's page") from error
    if found.question not in QUESTIONS.values():
        raise FormatError(f"{path}: answers a question that is not known; it is damaged")
    decided = [item["trial"] for item in content["answers"]]
    if len(set(decided)) < len(decided):
        raise FormatError(f"{path}: has two answers to one pair; save the answers again from the study's page")
    if not all(0 <= trial < found.trials for trial in decided):
        raise FormatError(f"{path}: answers a pair that its study has not; it is damaged")
    if not answers:
        raise FormatError(f"{path}: has no answer; decide some of the pairs before saving")
    return found


def check_together(all_answers: Sequence[Answers], report: str | None = None) -> None:
    """Raises FormatError for answers of another report than the first's, or than ``report`` (its digest).

    ConfigError for answers to two different questions, and for the same answers given twice.
    """
    first = all_answers[0]
    sessions: dict[str, Path] = {}
    for answers in all_answers:
        if report is not None and answers.report != report:
            raise FormatError(f"{answers.path}: belongs to another report; name the one that its study was made from")
        if answers.report != first.report:
            raise FormatError(f"{answers.path}: belongs to another report than {first.path}; score them apart")
        if answers.question != first.question:
            raise ConfigError(f"{answers.path}: answers another question than {first.path}; score them apart")
        if answers.session in sessions:
            raise ConfigError(f"{answers.path}: has the answers of {sessions[answers.session]} again; give them once")
        sessions[answers.session] = answers.path


def preferences(all_answers: Sequence[Answers]) -> list[Preference]:
    """For each two codecs that were compared the preference for the one that was taken more often."""
    groups: dict[tuple[str, str], list[Answer]] = {}
    for answers in all_answers:
        for answer in answers.answers:
            first, second = sorted((answer.chosen, answer.other))
            groups.setdefault((first, second), []).append(answer)
    result = []
    for (first, second), group in sorted(groups.items()):
        wins = sum(answer.chosen == first for answer in group)
        codec, against = (first, second) if 2 * wins >= len(group) else (second, first)
        chosen = max(wins, len(group) - wins)
        by_image: dict[str, list[bool]] = {}
        for answer in group:
            by_image.setdefault(answer.image, []).append(answer.chosen == codec)
        counts = np.array([(sum(of), len(of)) for of in by_image.values()])
        interval = wilson(chosen, len(group))
        result.append(Preference(codec, against, chosen, len(group), len(by_image), interval, _bootstrap(counts)))
    return result


def left_share(all_answers: Sequence[Answers]) -> float:
    """How often the left picture was taken: far from a half, answers say more of the sides than of the pictures."""
    sides = [answer.on_left for answers in all_answers for answer in answers.answers]
    return sum(sides) / len(sides)


def wilson(chosen: int, answers: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share: ``chosen`` of ``answers``, at least one (Wilson 1927)."""
    share, weight = chosen / answers, _Z**2 / answers
    centre = (share + weight / 2) / (1 + weight)
    half = _Z * math.sqrt(share * (1 - share) / answers + weight / (4 * answers)) / (1 + weight)
    return max(0.0, centre - half), min(1.0, centre + half)


def _bootstrap(counts: np.ndarray) -> tuple[float, float] | None:
    """counts: (images, 2) how often chosen, of how many answers."""
    if len(counts) < 2:
        return None
    random = numpy_generator(0, Stream.STUDY_BOOTSTRAP)
    sums = counts[random.integers(len(counts), size=(RESAMPLES, len(counts)))].sum(axis=1)
    low, high = np.percentile(sums[:, 0] / sums[:, 1], (2.5, 97.5))
    return float(low), float(high)


def _answer(item: dict[str, Any]) -> Answer:
    """Raises TypeError, KeyError and ValueError for what a page does not write."""
    side = item["chosen"]
    if side not in ("left", "right"):
        raise ValueError(side)
    chosen, other = item[side]["codec"], item["right" if side == "left" else "left"]["codec"]
    if not all(isinstance(text, str) for text in (item["image"], chosen, other)) or chosen == other:
        raise ValueError(item)
    ms, trial = item["ms"], item["trial"]
    if isinstance(trial, bool) or not isinstance(trial, int):
        raise ValueError(trial)
    if isinstance(ms, bool) or not isinstance(ms, int | float) or not 0 <= ms < math.inf:
        raise ValueError(ms)
    return Answer(item["image"], chosen, other, side == "left", ms)
