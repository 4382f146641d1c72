"""Images: decoding, resizing, masks and drawing, as pure functions on arrays. No HTTP, no models."""

import cv2

# Images are already worked on side by side, in the engine's threads: OpenCV's own pool would compete with them.
cv2.setNumThreads(1)
# It writes lines of its own about damaged files, which are the client's and told to it.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
