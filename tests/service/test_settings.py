"""Settings from the environment, and option words."""

import pytest

from service.errors import Reason, RequestError
from service.predictor import options_of
from service.settings import PREFIX, SettingError, read_settings, table


def test_defaults_are_what_the_table_says():
    settings = read_settings({})
    for name, default, current, text in table({}):
        assert str(getattr(settings, name.removeprefix(PREFIX).lower())) == default == current
        assert text.endswith(".")


@pytest.mark.parametrize(
    ("name", "value", "field", "expected"),
    [
        ("ZOOSERVE_DEVICE", "cpu", "device", "cpu"),
        ("ZOOSERVE_MAX_BATCH", "8", "max_batch", 8),
        ("ZOOSERVE_MAX_BODY_MB", "0.5", "max_body_mb", 0.5),
        ("ZOOSERVE_MODELS", " elsewhere ", "models", "elsewhere"),
        ("ZOOSERVE_THREADS", "", "threads", 0),
    ],
)
def test_a_variable_sets_its_field(name, value, field, expected):
    assert getattr(read_settings({name: value}), field) == expected


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ZOOSERVE_DEVICE", "tpu", "one of"),
        ("ZOOSERVE_WORKERS", "0", "from 1 to 64"),
        ("ZOOSERVE_MAX_MEGAPIXELS", "nan", "from 0.001 to 1000"),
        ("ZOOSERVE_TIMEOUT_MS", "soon", "whole number"),
    ],
)
def test_a_wrong_variable_is_named_with_its_range(name, value, words):
    with pytest.raises(SettingError, match=f"{name}={value}.*{words}"):
        read_settings({name: value})


@pytest.mark.parametrize(
    ("task", "words", "message"),
    [
        ("classify", {"top_k": "-1"}, "`top_k=-1`: expected a whole number from 1 to 1000."),
        ("classify", {"top_k": "3.5"}, "`top_k=3.5`: expected a whole number from 1 to 1000."),
        ("classify", {"topk": "3"}, "There is no option `topk` here. The options are `top_k`, `localize`, `heatmap`."),
        ("detect", {"score_threshold": "nan"}, "`score_threshold=nan`: expected a number from 0 to 1."),
        ("detect", {"iou_threshold": "inf"}, "`iou_threshold=inf`: expected a number from 0 to 1."),
        ("detect", {"max_detections": "1" + "0" * 40}, "expected a whole number from 1 to 1000."),
        ("segment", {"mask": "gif"}, "`mask=gif`: expected one of"),
    ],
)
def test_a_wrong_option_is_named_with_its_range(task, words, message):
    with pytest.raises(RequestError) as refused:
        options_of(task, words)
    assert refused.value.reason is Reason.BAD_OPTION
    assert message in refused.value.detail
