"""Gives predictions the labels with which `draw` names them."""

from service.results import Classification, CocoPose, Cropped, Detection, Pose


def with_second(found: Detection) -> Detection:
    """Give an object of a pipeline the best class of its crop, and that one's score, beside its own label."""
    if isinstance(found, Cropped) and found.second and found.second.predictions:
        best = found.second.predictions[0]
        if isinstance(best, Classification):
            return Detection(found.class_id, f"{found.label}: {best.label}", best.score, found.box)
    return found


def with_names(found: Pose | CocoPose) -> Pose:
    """Give a pose in COCO's form what drawing needs; its label and the points' names are numbers."""
    if isinstance(found, Pose):
        return found
    x, y, width, height = found.bbox
    values = iter(found.keypoints)
    points = {str(number): point for number, point in enumerate(zip(values, values, values, strict=True))}
    return Pose(found.category_id - 1, str(found.category_id), found.score, (x, y, x + width, y + height), points)
