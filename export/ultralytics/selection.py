"""How Ultralytics' library selects objects: its `predict`, and its `val`. For the families that read its files."""

from zoo.card import Nms

PREDICT = Nms(score_threshold=0.25, iou_threshold=0.7, max_detections=300)
VAL = Nms(score_threshold=0.001, iou_threshold=0.7, max_detections=300)
