"""A client for zooserve servers: sends images, returns typed results. Needs httpx, numpy and filelock only.

from zooserve_client import Client

with Client("http://localhost:3000") as client:
    found = client.detect("street.jpg", score_threshold=0.5)
print(found.labels, found.boxes)
"""

from zooserve_client.aio import AsyncClient
from zooserve_client.call import Format, Task
from zooserve_client.client import Client
from zooserve_client.errors import DeadlineError, ImageError, UnreachableError, ZooserveError
from zooserve_client.folder import FolderProgress, predict_folder_to_file
from zooserve_client.images import ImageInput, images_in
from zooserve_client.results import Prediction, Result
from zooserve_client.results_file import ResultsFileError

# Names of version 0.1.0.
Picture, PictureError, pictures_in = ImageInput, ImageError, images_in

__all__ = [
    "AsyncClient",
    "Client",
    "DeadlineError",
    "FolderProgress",
    "Format",
    "ImageError",
    "ImageInput",
    "Picture",
    "PictureError",
    "Prediction",
    "Result",
    "ResultsFileError",
    "Task",
    "UnreachableError",
    "ZooserveError",
    "images_in",
    "pictures_in",
    "predict_folder_to_file",
]
