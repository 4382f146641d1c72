"""`zooserve eval`: measures a model's accuracy and robustness through the predictor that serves it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import click
from msgspec import Struct
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from evaluation.attack import Case, Change, Robustness, Setting, attack_all
from evaluation.average_precision import as_evaluated
from evaluation.dataset import DataError, Judge, Measure, Scores, spread
from evaluation.draw_attack import draw_attack
from evaluation.draw_scores import draw_scores
from evaluation.recognise import FORMATS, Format, read, recognise
from evaluation.recorded import answered, read_recorded
from evaluation.run import Problem, judge_all
from service.commands.load import load_model
from service.cores import usable_cores
from service.results import Classification
from zoo.cli import drawn_into, models_option, print_json

_SHOWN = 10  # classes, photos or unreadable images that are printed


class Report(Struct, omit_defaults=True):
    """What `--json` prints.

    Attributes:
        data, format, notes: what was evaluated, and how it was read.
        pixels: `fast` or `exact`; `recorded` if the answers are from a log.
        options: of the task, as used.
        pictures: number of images that were judged; `unreadable` lists the others.
    """

    model: str
    version: str
    sha256: str
    task: str
    precision: str
    data: str
    format: str
    notes: tuple[str, ...]
    pixels: str
    options: dict[str, Any]
    pictures: int
    seconds: float
    unreadable: list[Problem] = []
    scores: Scores | None = None
    robustness: list[Robustness] = []
    changes: list[Change] = []


@click.command(
    "eval",
    epilog="""\b
Examples:
  zooserve eval lenet5 mnist                                  the zoo's own dataset
  zooserve eval mobilenet_v2 imagenet/val --limit 5000        one folder per class
  zooserve eval yolov4_tiny coco/val2017                      coco/annotations/instances_val2017.json is found
  zooserve eval deeplabv3_mobilenet_v2 VOCdevkit/VOC2012      JPEGImages/ and SegmentationClass/, those of
                                                              ImageSets/Segmentation/val.txt where it is there
  zooserve eval lenet5 mnist --attack fgsm --epsilon 8 --epsilon 32 --picture attack.png
  zooserve eval mobilenet_v2 cat.jpg --attack pgd --steps 10  changes the model's own answer
  zooserve eval lenet5 digits --answers mlperf_log_accuracy.json    what a server answered

\b
Folders of classes are matched to the model's labels by label (case, spaces, _ and - aside), WordNet id (n02124075) or
class id; a classes.txt in DATA (lines such as `tabby_cats Egyptian cat`) says what other names stand for. Detectors are
asked with the `evaluation` of their card, as in published evaluations: where it says nothing, with score_threshold
0.001, iou_threshold 0.65 and max_detections 100. What was used is printed. Ultralytics' val gives a box several labels:
for that, export its models with --class-scores.
""",
)
@click.argument("name")
@click.argument("data")
@click.option(
    "--annotations",
    type=click.Path(exists=True, path_type=Path),
    help="COCO's instances.json, or a folder of masks, for the images in DATA. [default: instances found there]",
)
@click.option("--format", "form", type=click.Choice(FORMATS), help="Of DATA. [default: what it looks like]")
@click.option(
    "--answers",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Judge the answers of a server in this log of `python -m loadtests.loadgen accuracy`.",
)
@click.option("--limit", type=click.IntRange(1), help="Only so many images, at even distances.")
@click.option("--pixels", type=click.Choice(["fast", "exact"]), help="[default: $ZOOSERVE_PIXELS, else fast]")
@click.option(
    "--attack", "attacks", multiple=True, metavar="fgsm|pgd", help="Attack the model. May be given several times."
)
@click.option(
    "--epsilon",
    "epsilons",
    type=click.IntRange(0, 255),
    multiple=True,
    help="The most that an attack changes, in grey levels of 255. May be given several times. [default: 4]",
)
@click.option("--steps", type=click.IntRange(1, 1000), default=10, show_default=True, help="Of the attack pgd.")
@click.option(
    "--picture",
    "drawing",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=drawn_into,
    help="Draw the result into this PNG file.",
)
@models_option()
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs, with all classes.")
def eval_(
    *,
    name: str,
    data: str,
    annotations: Path | None,
    form: Format | None,
    answers: Path | None,
    limit: int | None,
    pixels: Literal["fast", "exact"] | None,
    attacks: tuple[str, ...],
    epsilons: tuple[int, ...],
    steps: int,
    drawing: Path | None,
    models: str | None,
    as_json: bool,
) -> None:
    """Judge how good the model NAME is on DATA, through the path that serves.

    \b
    DATA is recognised by its shape:
      a folder with one folder per class              top-1, top-5        classify
      images with COCO's instances*.json              COCO's AP and AR    detect, instances, pose
      the same, with corners as segmentation          AP by ProbIoU       obb
      JPEGImages/ and SegmentationClass/, or masks    mIoU                segment
      a dataset of the zoo: mnist                     top-1, top-5        classify
      photos                                          with --attack only  classify

    Images that cannot be read are counted and named. Nothing is left out silently.
    """  # noqa: D301 - click's mark for lines that stay as they are
    if answers is not None and attacks:
        raise click.UsageError("--answers are a server's, and --attack asks the model itself: give one of the two")
    form = form or recognise(data, annotations, attacked=bool(attacks))
    if form == "photos" and not attacks:
        raise click.UsageError(
            f"{data} holds photos of which nothing is known: put them into one folder per class, name --annotations, "
            "or --attack the model's own answers"
        )
    model, predictor, server = load_model(name, models, pixels=pixels)
    if attacks and model.card.task != "classify":
        raise DataError(f"{name} has the task {model.card.task}: only classifiers are attacked")
    if form == "coco":
        model.card = as_evaluated(model.card)
    dataset = read(data, model.card, form, annotations)
    examples = spread(dataset.examples, limit)
    recorded = None if answers is None else read_recorded(answers, model.card)
    notes = dataset.notes
    if recorded is not None:
        examples, note = answered(examples, recorded)
        notes = (*notes, note)
    settings = [
        Setting(attack, epsilon, steps if attack != "fgsm" else 1) for attack in attacks for epsilon in epsilons or (4,)
    ]
    began = time.perf_counter()
    scores: Scores | None = None
    case: Case | None = None
    robustness: list[Robustness] = []
    changes: list[Change] = []
    with _progress(f"{name} on {Path(data).name}", len(examples)) as on_done:
        if settings:
            robustness, changes, case, problems = attack_all(
                predictor, model, examples, settings, threads=usable_cores(), on_done=on_done
            )
        else:
            judge = cast(Judge, dataset.judge)  # photos, which have none, are attacked
            scores, problems = judge_all(
                recorded or predictor, model, examples, judge, threads=usable_cores(), on_done=on_done
            )
    report = Report(
        model=model.card.name,
        version=model.card.version,
        sha256=model.card.sha256,
        task=model.card.task,
        precision=model.card.precision,
        data=data,
        format=form,
        notes=notes,
        pixels="recorded" if recorded else server.pixels,
        options=dict(dataset.judge.options) if dataset.judge and not settings else {},
        pictures=len(examples) - len(problems),
        seconds=round(time.perf_counter() - began, 3),
        unreadable=problems,
        scores=scores,
        robustness=robustness,
        changes=changes if form == "photos" else [],
    )
    if as_json:
        print_json(report)
    else:
        _show(report)
    if drawing is not None:
        title = f"{name} on {Path(data).name}, {_images(report.pictures)}"
        image = draw_scores(scores, title) if scores else draw_attack(cast(Case, case), f"{name} under attack")
        image.save(drawing)
        click.echo(f"drawn into {drawing}", err=True)


class _Rate(ProgressColumn):
    """Images per second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:,.0f} images/s", style="progress.data.speed")


@contextmanager
def _progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on stderr if that is a terminal, and print the time at the end."""
    console = Console(stderr=True, highlight=False, markup=False)
    name = TextColumn("{task.description}", markup=False)
    columns = (name, BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    began = time.perf_counter()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(title, total=total)
        yield lambda done: progress.advance(bar, done)
    seconds = time.perf_counter() - began
    console.print(f"{_images(total)} in {seconds:.1f} s, {total / seconds:,.0f}/s")


def _show(report: Report) -> None:
    """Print a report as text."""
    width = None if Console().is_terminal else 120
    print_ = Console(highlight=False, markup=False, emoji=False, width=width, soft_wrap=True).print
    print_(f"{report.model} {report.version} on {report.data}, {_images(report.pictures)} ({report.pixels} pixels)")
    for note in report.notes:
        print_(f"  {note}")
    if report.scores is not None:
        print_(_table(["MEASURE", "VALUE", "95 % INTERVAL"], [_cells(one.name, one) for one in report.scores.measures]))
        imperfect = (one for one in report.scores.per_class if one.value < 1)
        worst = sorted(imperfect, key=lambda one: (one.value, -one.count))[:_SHOWN]
        heading = ["WORST CLASSES", report.scores.per_class_measure.upper(), "OF"]
        if worst:
            print_(_table(heading, [[one.label, _percent(one.value), f"{one.count:,}"] for one in worst]))
    if report.robustness:
        rows = [
            [
                one.setting.attack or "none",
                str(one.setting.epsilon),
                str(one.setting.steps) if one.setting.attack else "",
                *_cells("", one.accuracy)[1:],
            ]
            for one in report.robustness
        ]
        print_(_table(["ATTACK", "EPSILON", "STEPS", "STAYS" if report.changes else "TOP-1", "95 % INTERVAL"], rows))
    if report.changes:
        last = report.robustness[-1].setting
        rows = [[one.name, _answer(one.before), _answer(one.after)] for one in report.changes[:_SHOWN]]
        print_(_table(["PHOTO", "BEFORE", f"AFTER {last.attack} {last.epsilon}"], rows, text=True))
    for problem in report.unreadable[:_SHOWN]:
        print_(f"not judged: {problem.name}: {problem.problem}")
    if len(report.unreadable) > _SHOWN:
        print_(f"and {len(report.unreadable) - _SHOWN:,} more were not judged")


def _table(headings: list[str], rows: list[list[str]], *, text: bool = False) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="left" if i == 0 or text else "right")
    for row in rows:
        table.add_row(*row)
    return table


def _cells(name: str, measure: Measure) -> list[str]:
    low, high = measure.low, measure.high
    between = "" if low is None or high is None else f"{_percent(low)} to {_percent(high)}"
    return [name, _percent(measure.value), between]


def _percent(share: float) -> str:
    return f"{share:.2%}".replace("%", " %")


def _images(count: int) -> str:
    return f"{count:,} image" + "s" * (count != 1)


def _answer(answer: Classification) -> str:
    return f"{answer.label} {answer.score:.3f}"
