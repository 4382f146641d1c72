"""Class names as Ultralytics notes them, in its checkpoints and in the ONNX files that it exports."""


def class_names(noted: object) -> tuple[str, ...]:
    """Return the names in the order of their class ids; none where the note is not of that form.

    Args:
        noted: a list, or a dict from the ids 0, 1, 2, ... in whatever order they were written.
    """
    if isinstance(noted, dict):
        if set(noted) != set(range(len(noted))):
            return ()
        noted = [noted[class_id] for class_id in range(len(noted))]
    return tuple(map(str, noted)) if isinstance(noted, list | tuple) else ()
