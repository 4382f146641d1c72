"""Users who classify, detect and segment, for Locust: `locust -f loadtests/locustfile.py --host http://127.0.0.1:3000`.

Runs from any folder. Its page is at http://localhost:8089 (`--web-host 127.0.0.1` keeps it to this machine); without
one: `--headless --users 20 --run-time 1m --html report.html`. docs/load-testing.md tells the rest. Exits with 1 where
any answer was wrong.
"""

import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # of this project, wherever Locust was started

from zoo.errors import MissingError, ZooError
from zoo.extras import require

try:
    require("locust")
except MissingError as error:
    sys.exit(str(error))

from locust import events
from locust.env import Environment
from locust.exception import StopTest
from locust.runners import MasterRunner, WorkerRunner
from locust.user.task import filter_tasks_by_tags

from loadtests.users.plan import add_options, plan
from loadtests.users.staged import shape
from loadtests.users.visitor import Visitor, tasks_of

if TYPE_CHECKING:
    from locust.web import WebUI

__all__ = ["Visitor"]  # what Locust looks for


def check(environment: Environment, web_ui: "WebUI | None" = None, **_: Any) -> None:
    """Choose the shape; ask the server before a test without a page, and have the page say what is wrong."""
    options = environment.parsed_options
    assert options is not None  # noqa: S101 - Locust's command line has parsed them
    if isinstance(environment.runner, WorkerRunner):
        return
    environment.shape_class = chosen = shape(options.shape)
    if chosen is not None:
        chosen.runner = environment.runner
    if options.headless or options.autostart:
        if problem := adopt(environment.host, options):
            print(f"locust: {problem}", file=sys.stderr)  # noqa: T201
            sys.exit(2)
    elif web_ui is not None and web_ui.app is not None:
        web_ui.app.before_request(lambda: refuse(environment))


def prepare(environment: Environment, **_: Any) -> None:
    """Ask the server what it has, on every machine that sends."""
    if isinstance(environment.runner, MasterRunner):
        return
    if problem := adopt(environment.host, environment.parsed_options):
        environment.process_exit_code = 2
        raise StopTest(problem)


def adopt(host: str | None, options: Any) -> str:
    """Give the users a plan, and the tasks that it and `--tags` leave. Returns what is wrong, if anything is."""
    try:
        Visitor.plan = plan(host, options)
    except (ZooError, ValueError, OSError) as error:
        return str(error)
    Visitor.tasks = tasks_of(Visitor.plan)
    tags, others = (set(given) if given else None for given in (options.tags, options.exclude_tags))
    filter_tasks_by_tags(Visitor, tags, others)
    asked = ", ".join(Visitor.plan.asked)
    return "" if Visitor.tasks else f"nothing is left to do: the server can {asked}, and --tags leave none of these"


def refuse(environment: Environment) -> Any:
    """Answer the page's "Start" with what is wrong, where something is; Flask goes on where this returns None."""
    from flask import jsonify, request  # noqa: PLC0415 - only where there is a page

    if request.method != "POST" or not request.path.endswith("/swarm"):
        return None
    options = Namespace(**vars(environment.parsed_options))
    options.model = request.form.get("model", options.model)
    options.think_time = request.form.get("think_time", options.think_time)
    try:
        options.rubbish = float(request.form.get("rubbish", options.rubbish))
    except ValueError as error:
        return jsonify({"success": False, "message": f"rubbish: {error}", "host": environment.host})
    host = request.form.get("host", environment.host)
    problem = adopt(host, options)
    return jsonify({"success": False, "message": problem, "host": host}) if problem else None


_listeners: Any = events  # Locust's own types say nothing of them
_listeners.init_command_line_parser.add_listener(add_options)
_listeners.init.add_listener(check)
_listeners.test_start.add_listener(prepare)
