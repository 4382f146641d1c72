"""Robustness: a classifier's answers to images that were changed to mislead it. Called by `zooserve eval --attack`.

Attacks need gradients, which a served graph does not have. They are entry points of the group `zooserve.attacks`,
imported when needed; `export.attack` has them. The served graph answers the changed images.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import entry_points
from typing import NamedTuple, Protocol, cast

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from evaluation.classify import share
from evaluation.dataset import DataError, Example, Measure
from evaluation.run import Problem, nothing_left, reason
from service.errors import RequestError
from service.models.inputs import ImageInput
from service.models.model import ImageModel
from service.predictor import Predictor
from service.results import Classification
from zoo.extras import missing
from zoo.served_card import ServedCard

Images = npt.NDArray[np.uint8]

_GROUP = "zooserve.attacks"
_BATCH = 8  # for gradients, a network keeps about 75 MB per image
_TOP_K = 5


class Attack(Protocol):
    """Changes images, uint8 [N, H, W, 3], by at most `epsilon` grey levels, away from their `labels`, int64 [N]."""

    def __call__(self, images: Images, labels: npt.NDArray[np.int64], *, epsilon: int, steps: int) -> Images: ...


class Setting(Struct, frozen=True):
    """An attack and its strength; `epsilon` is in grey levels of 255. None: the unchanged images."""

    attack: str | None = None
    epsilon: int = 0
    steps: int = 1


class Robustness(Struct, frozen=True):
    """The share of images with a correct answer under one setting."""

    setting: Setting
    accuracy: Measure


class Change(Struct, frozen=True):
    """The best answer to one image, before and after an attack with the last setting."""

    name: str
    before: Classification
    after: Classification


class Case(NamedTuple):
    """One image before and after, uint8 [H, W, 3], with its answers; `fooled` if only the first was correct."""

    name: str
    setting: Setting
    before: Images
    after: Images
    answers_before: list[Classification]
    answers_after: list[Classification]
    fooled: bool

    @property
    def rank(self) -> tuple[bool, int, float]:
        """Sort key for the most instructive case: fooled, by the weakest setting, with high scores before and after."""
        sure = self.answers_before[0].score * self.answers_after[0].score
        return self.fooled, -self.setting.epsilon, sure


class _Verdict(NamedTuple):
    """The result for a batch: the number of correct answers under each setting; the rest as `attack_all` returns it."""

    right: Mapping[Setting, int]
    changes: list[Change]
    cases: list[Case]
    problems: list[Problem]


def load_attack(name: str, card: ServedCard) -> Attack:
    """Load the attack `name` for a model.

    Raises:
        DataError: there is none, or torch is not installed.
    """
    found = {entry.name: entry for entry in entry_points(group=_GROUP)}
    if name not in found:
        raise DataError(f"there is no attack {name!r}; expected one of {', '.join(sorted(found))}")
    try:
        attack: Attack = found[name].load()(card)
    except ModuleNotFoundError as error:
        if (advice := missing(error)) is None:
            raise
        raise DataError(f"the attack {name} needs gradients: {advice}") from error
    return attack


def attack_all(
    predictor: Predictor,
    model: ImageModel,
    examples: Sequence[Example],
    settings: Sequence[Setting],
    *,
    threads: int,
    on_done: Callable[[int], None] = lambda _: None,
) -> tuple[list[Robustness], list[Change], Case, list[Problem]]:
    """Answer every example unchanged, and attacked with each setting.

    If an example's truth is not known, the model's answer to the unchanged image is used.

    Args:
        predictor: prepares the images.
        model: answers.
        examples: with class ids as their truth, or None.
        settings: the attacks.
        threads: number of concurrent batches; each is computed on one core.
        on_done: called with the number of images done since the last call.

    Returns:
        The accuracies, first that of the unchanged images; each image's answers under the last setting; the most
        instructive image; and the images that could not be read.

    Raises:
        DataError: no image could be read, an attack is not known or needs missing libraries.
        ZooError: it is no classifier, or there is no network with gradients for it.
    """
    attacks = {name: load_attack(name, model.card) for name in dict.fromkeys(s.attack for s in settings) if name}
    batches = [examples[i : i + _BATCH] for i in range(0, len(examples), _BATCH)]
    verdicts = []
    with ThreadPoolExecutor(threads, "eval") as pool:
        for verdict, batch in zip(
            pool.map(lambda batch: _attack_batch(predictor, model, batch, settings, attacks), batches),
            batches,
            strict=True,
        ):
            verdicts.append(verdict)
            on_done(len(batch))
    problems = [problem for verdict in verdicts for problem in verdict.problems]
    total = len(examples) - len(problems)
    if not total:
        raise nothing_left(problems)
    robustness = [
        Robustness(setting, share("top-1", sum(verdict.right[setting] for verdict in verdicts if verdict.right), total))
        for setting in (Setting(), *settings)
    ]
    changes = [change for verdict in verdicts for change in verdict.changes]
    case = max((case for verdict in verdicts for case in verdict.cases), key=lambda case: case.rank)
    return robustness, changes, case, problems


def _attack_batch(
    predictor: Predictor,
    model: ImageModel,
    examples: Sequence[Example],
    settings: Sequence[Setting],
    attacks: Mapping[str, Attack],
) -> _Verdict:
    """Answer a batch unchanged and under each setting. Only its most instructive case is kept."""
    inputs: list[tuple[str, ImageInput]] = []
    truths, problems = [], []
    before = np.empty((len(examples), model.card.recipe.height, model.card.recipe.width, 3), np.uint8)
    options = predictor.options(model, {"top_k": _TOP_K})
    for example in examples:
        try:
            image = predictor.image(example.read(), model, options)
            image.write(before[len(inputs)])
        except (OSError, RequestError) as error:
            problems.append(Problem(example.name, reason(error)))
            continue
        inputs.append((example.name, image))
        truths.append(example.truth)
    if not inputs:
        return _Verdict({}, [], [], problems)

    def answer(images: Images) -> list[list[Classification]]:
        outputs = model.run({"images": images})
        return [cast(list[Classification], image.answer(outputs, i).predictions) for i, (_, image) in enumerate(inputs)]

    before = before[: len(inputs)]
    clean = answer(before)
    labels = [found[0].class_id if truth is None else truth for truth, found in zip(truths, clean, strict=True)]
    kept = {Setting(): [found[0].class_id == label for found, label in zip(clean, labels, strict=True)]}
    cases: list[Case] = []
    changes: list[Change] = []
    for setting in settings:
        attack = attacks[setting.attack or ""]
        after = attack(before, np.array(labels), epsilon=setting.epsilon, steps=setting.steps)
        attacked = answer(after)
        kept[setting] = [found[0].class_id == label for found, label in zip(attacked, labels, strict=True)]
        cases += [
            Case(name, setting, before[i], after[i], clean[i], attacked[i], kept[Setting()][i] and not kept[setting][i])
            for i, (name, _) in enumerate(inputs)
        ]
        changes = [Change(name, clean[i][0], attacked[i][0]) for i, (name, _) in enumerate(inputs)]
    best = max(cases, key=lambda case: case.rank)
    return _Verdict({setting: sum(each) for setting, each in kept.items()}, changes, [best], problems)
