"""Ask a zooserve server: pictures in, typed results out. Needs httpx and numpy, and nothing of the server.

from zooserve_client import Client

with Client("http://localhost:3000") as client:
    found = client.detect("street.jpg", score_threshold=0.5)
print(found.labels, found.boxes)
"""

from zooserve_client.aio import AsyncClient
from zooserve_client.call import Format, Task
from zooserve_client.client import Client
from zooserve_client.errors import DeadlineError, PictureError, UnreachableError, ZooserveError
from zooserve_client.pictures import Picture, pictures_in
from zooserve_client.results import Prediction, Result

__all__ = [
    "AsyncClient",
    "Client",
    "DeadlineError",
    "Format",
    "Picture",
    "PictureError",
    "Prediction",
    "Result",
    "Task",
    "UnreachableError",
    "ZooserveError",
    "pictures_in",
]
