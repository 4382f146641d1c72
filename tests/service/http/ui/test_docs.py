"""/docs in a real browser: everything is described, an example runs, and nothing is asked of another origin."""

import pytest

from service.tasks import TASKS
from tests.conftest import ROOT

COFFEE = ROOT / "docs" / "coffee.jpg"


def test_the_page_lists_every_operation(open_page):
    page = open_page("../docs")
    page.wait_for_selector(".opblock")
    paths = page.locator(".opblock-summary-path").all_inner_texts()
    assert paths[: len(TASKS)] == [f"/v1/{task}" for task in TASKS]
    assert page.locator(".opblock").count() == 17
    assert page.get_by_text("Failed to load").count() == 0


@pytest.mark.parametrize(
    ("operation", "text"), [("classify", "Egyptian cat"), ("detect", '"box"'), ("segment", '"area"')]
)
def test_an_example_can_be_executed_unchanged(open_page, operation, text):
    page = open_page(f"../docs#/predict/{operation}", height=2400)
    page.locator(f"#operations-predict-{operation} .execute").click()
    answer = page.locator(f"#operations-predict-{operation} .live-responses-table .response")
    assert text in answer.inner_text()
    assert answer.locator(".response-col_status").inner_text().startswith("200")


def test_a_pipeline_can_be_asked_with_the_options_that_are_filled_in(open_page):
    page = open_page("../docs#/predict/ask_pipeline", height=2400, expect=["escaping deep link"])
    asked = page.locator("#operations-predict-ask_pipeline")
    asked.locator("tr[data-param-name=name] input").fill("objects")
    asked.locator("select.content-type, .opblock-section-request-body select").first.select_option("image/jpeg")
    asked.locator("input[type=file]").set_input_files(COFFEE)
    asked.locator(".execute").click()
    answer = asked.locator(".live-responses-table .response")
    assert '"crop"' in answer.inner_text()
    assert "?score_threshold=0.5" in asked.locator(".request-url").inner_text()
