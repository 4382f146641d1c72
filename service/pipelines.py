"""The pipelines of a process: finds a pipeline's card and its models, and makes inputs of images. All protocols use it.

Those of the zoo are offered where the store has both models, a user's own always. What keeps one from answering is said
to whoever asks for it, and by `/v1/pipelines`. The folder is read again when a pipeline is asked for, at most as often
as the store is (`ZOOSERVE_WATCH_S`).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from math import inf
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec
from msgspec import Struct

from service.engine.calls import Calls
from service.errors import Reason, RequestError
from service.models.entry import ModelEntry
from service.models.model import ImageModel
from service.models.pipeline import Pipeline, PipelineImage
from service.models.registry import NotLoadedError, Registry
from service.options import expected, given_type
from service.predictor import Predictor
from service.results import Result
from service.settings import Settings
from service.tasks import TASKS, Operation
from service.tasks.grid import Tiling
from zoo.errors import CardError
from zoo.pipeline_card import PipelineCard, own_pipelines, zoo_pipelines

TASK = "pipeline"
"""What metrics, logs and traces have in the place of a task."""
PREFIX = "second_"
"""Before an option of the second task that the detector has too."""
_OF_TILES = frozenset(Tiling.__struct_fields__)  # for the detector alone: no crop is cut into tiles
Found = PipelineCard | CardError


class Option(Struct, frozen=True):
    """An option of a pipeline's requests: whose it is, its name there, its type, and its default."""

    second: bool
    name: str
    kind: Any
    default: Any


class Pipelines:
    """All pipelines that can be asked for.

    Args:
        registry: of the models.
        predictor: checks their options.
        settings: of the server.
        calls: decode images.
    """

    def __init__(self, registry: Registry, predictor: Predictor, settings: Settings, calls: Calls) -> None:
        self._registry, self._predictor, self._settings, self._calls = registry, predictor, settings, calls
        self._zoo = zoo_pipelines()
        self._own: Mapping[str, Found] = {}
        self._all: Mapping[str, Found] = {}
        self._entries: Mapping[str, ModelEntry] | None = None  # those with which `_all` was made
        self._looked = -inf

    def all(self) -> Mapping[str, Found]:
        """Return all pipelines by name, sorted; of a file that is not valid, its error."""
        now, entries = perf_counter(), self._registry.entries
        looks = now - self._looked >= (self._settings.watch_s or inf)
        if looks:
            self._own, self._looked = own_pipelines(Path(self._settings.models)), now
        if looks or entries is not self._entries:
            zoo: dict[str, Found] = {
                name: card
                for name, card in self._zoo.items()
                if isinstance(card, PipelineCard) and all(model in entries for model in card.models)
            }
            self._all, self._entries = dict(sorted({**zoo, **self._own}.items())), entries
        return self._all

    def get(self, name: str) -> PipelineCard | None:
        """Return the card of a pipeline; None if there is none, or a model has this name."""
        card = self.all().get(name)
        return card if isinstance(card, PipelineCard) and name not in self._registry.entries else None

    def find(self, name: str) -> PipelineCard:
        """Find a pipeline's card.

        Raises:
            RequestError: `unknown_model`; `not_ready` if its file is not valid.
        """
        known = self.all()
        card = known.get(name)
        if card is None:
            raise RequestError(
                Reason.UNKNOWN_MODEL, f"There is no pipeline `{name[:80]}`. There are: {', '.join(known) or 'none'}."
            )
        if isinstance(card, CardError):
            raise RequestError(Reason.NOT_READY, f"The pipeline `{name}` is not valid: {card}.")
        return card

    def finds(self, card: PipelineCard) -> Sequence[Callable[[], ImageModel]]:
        """Return a function for each of the two models that finds it, in the order in which they are to be obtained.

        It is the same order for all pipelines. So of two requests that both need two models, and have memory for one
        more, none has what the other waits for.

        Raises (also the functions):
            RequestError: `not_ready`: the pipeline cannot answer without a model, which is not there or not able to. So
                none is loaded in vain.
            NotLoadedError (the functions alone): it is loaded when it is asked for.
        """
        roles: list[tuple[str, Operation]] = [(card.detect.model, "detect"), (card.second.model, card.second.task)]
        finds = [partial(self._model, card, name, task) for name, task in sorted(roles)]
        for find in finds:
            with suppress(NotLoadedError):
                find()
        return finds

    def problem(self, card: Found) -> str:
        """Return why a pipeline cannot answer now; empty if it can, also if its models are loaded for it.

        Whether there can ever be memory for a model is known once it was asked for.
        """
        if isinstance(card, CardError):
            return f"{card}."
        if card.name in self._registry.entries:
            return f"A model is called `{card.name}` as well: give the pipeline another name."
        try:
            self._bound(card, [find() for find in self.finds(card)], {})
        except NotLoadedError:
            return self._too_large(card)
        except RequestError as error:
            return error.detail
        return ""

    def _too_large(self, card: PipelineCard) -> str:
        """Return why a model of a pipeline can never be loaded; empty if both can, or that is not known yet."""
        entries = self._registry.entries
        for name in card.models:
            entry = entries[name]
            others = [other for other in entries.values() if other is not entry]
            reason = self._registry.budget.refusal(entry.footprint, others, card.models)
            if entry.model is None and entry.footprint.most and reason:
                return f"`{name}` cannot be loaded: {reason}."
        return ""

    def bind(self, card: PipelineCard, models: Sequence[ImageModel], params: Mapping[str, object]) -> Pipeline:
        """Return a pipeline with its loaded models, as `finds` found them, and the options of a request.

        Raises:
            RequestError: `bad_option`; `not_ready` if the card does not fit the models.
        """
        self._bound(card, models, {})  # if the card's own options are wrong, that is not the request's fault
        return self._bound(card, models, params)

    def image(self, data: bytes, pipeline: Pipeline) -> PipelineImage:
        """Make an input of an encoded image. Nothing is decoded yet. The predictor submits it for the detector."""
        return PipelineImage(data, pipeline, self._settings, self._calls)

    def predict(self, data: bytes, name: str, params: Mapping[str, object]) -> Result:
        """Answer one image on the calling thread, without a queue; raises `RequestError`."""
        card = self.find(name)
        return self.image(data, self.bind(card, [find() for find in self.finds(card)], params)).alone()

    def _model(self, card: PipelineCard, name: str, task: Operation) -> ImageModel:
        try:
            return self._registry.get(task, name)
        except NotLoadedError:
            raise
        except RequestError as error:
            raise _unable(card, error.detail, error.retry_after) from None

    def _bound(self, card: PipelineCard, models: Sequence[ImageModel], params: Mapping[str, object]) -> Pipeline:
        by_name = {model.card.name: model for model in models}
        detector, second = (by_name[name] for name in card.models)
        labels = detector.card.labels
        if unknown := [label for label in card.detect.classes if label not in labels]:
            raise _unable(card, f"`{detector.card.name}` finds no objects of the class `{unknown[0]}`.")
        crops, room = card.crops.max_crops, second.batcher.max_queue
        if crops > room:
            raise _unable(
                card, f"its `max_crops` is {crops}, and ZOOSERVE_MAX_QUEUE lets {room} images wait. Change one of them."
            )
        if tiles := _OF_TILES & card.second.options.keys():
            raise _unable(
                card,
                f"its card has the option `{min(tiles)}` for crops, which are not cut into tiles. Give it to `detect`.",
            )
        given: tuple[dict[str, object], dict[str, object]] = (dict(card.detect.options), dict(card.second.options))
        known = options_of_pipeline(card)
        for name, value in params.items():
            option = known.get(name)
            if option is None:
                names = ", ".join(f"`{one}`" for one in known)
                raise RequestError(
                    Reason.BAD_OPTION,
                    f"There is no option `{name[:80]}` of the pipeline `{card.name}`. The options are {names}.",
                )
            given[option.second][option.name] = value
        try:
            return Pipeline(
                card,
                detector,
                second,
                self._predictor.options(detector, given[0], "detect"),
                self._predictor.options(second, given[1], card.second.task),
            )
        except RequestError as error:
            if params:
                raise
            raise _unable(card, f"its card has options that are not allowed: {error.detail}") from None


def options_of_pipeline(card: PipelineCard) -> dict[str, Option]:
    """Return the options of a pipeline's requests by name: the detector's, and those of the second task.

    Where both have one of a name, that of the second task has the prefix `second_`.
    """
    first, second = _fields("detect"), _fields(card.second.task, _OF_TILES)
    options = {name: Option(False, name, *field) for name, field in first.items()}
    return options | {
        (PREFIX + name if name in first else name): Option(True, name, *field) for name, field in second.items()
    }


def describe_options(card: PipelineCard) -> dict[str, str]:
    """Return what each option of a pipeline's requests may be, in words."""
    return {name: expected(option.kind) for name, option in options_of_pipeline(card).items()}


def _fields(task: Operation, without: Collection[str] = ()) -> dict[str, tuple[Any, Any]]:
    fields = msgspec.structs.fields(TASKS[task].options)
    return {
        field.encode_name: (given_type(field.type), field.default)
        for field in fields
        if field.encode_name not in without
    }


def _unable(card: PipelineCard, detail: str, retry_after: float | None = None) -> RequestError:
    return RequestError(
        Reason.NOT_READY, f"The pipeline `{card.name}` cannot answer: {detail}", retry_after=retry_after
    )
