"""The best (box, class) pairs of a detector: what one and two stages share."""

from torch import Tensor


def best_pairs(scores: Tensor, limit: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pick the best pairs of a box and a class, best first.

    A pair among the best K has a box among the K whose best class scores highest, so that only those are ranked in
    full: far less than ranking all of a dense detector's millions of pairs.

    Args:
        scores: float32 [N, A, C], or anything of the same order.
        limit: most pairs.

    Returns:
        scores float32 [N, K], boxes' indices int64 [N, K] and classes int64 [N, K]; K = min(limit, A * C).
    """
    anchors, classes = scores.shape[1:]
    few = min(limit, anchors)
    candidates = scores.amax(2).topk(few, dim=1).indices
    rows = scores.gather(1, candidates[..., None].expand(-1, -1, classes))
    best, pairs = rows.flatten(1).topk(min(limit, few * classes), dim=1)
    return best, candidates.gather(1, pairs // classes), pairs % classes


def rows_of(values: Tensor, indices: Tensor) -> Tensor:
    """Pick rows: values [N, A, D] by indices int64 [N, K] -> [N, K, D]."""
    return values.gather(1, indices[..., None].expand(-1, -1, values.shape[2]))
