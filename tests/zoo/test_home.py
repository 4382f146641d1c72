"""A user without a home, as in a container that was started with any number: nothing is kept, and all else works."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

CODE = """
import os
import service.supervisor  # what is imported may lie where only root can read
from service.engine.optimised import Optimised
from service.engine.profile_cache import measuring, recall, remember
from service.engine.providers import Tuning
from service.supervisor import state_folder
from zoo.errors import SourceError
from zoo.sources.cache import Cache

os.setgid(54321)
os.setuid(54321)
del os.environ["HOME"]
remember("key", Tuning())
assert recall("key", Tuning) is None
assert Optimised("a" * 64, 5)._files is None
with measuring(), state_folder() as folder:
    assert folder.is_absolute()
try:
    Cache()
except SourceError as error:
    assert "ZOOSERVE_CACHE" in str(error)
else:
    assert False, "downloads have no place"
assert not os.listdir()
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become a user that there is not")
def test_nothing_is_kept_and_nothing_is_written_into_the_current_folder(tmp_path):
    tmp_path.chmod(0o777)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
