"""Images: decoding, resizing, masks and drawing, as pure functions on arrays. Knows nothing of HTTP or models."""

import cv2

# The engine's threads already process several images in parallel. OpenCV's thread pool would compete with them.
cv2.setNumThreads(1)
# OpenCV would log a line for each damaged file. The client who sent the file gets an error instead.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
