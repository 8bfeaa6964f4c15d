"""Models of transformers and PEFT: their owner, and how to give them to a `Network`.

It needs the packages of the extra `huggingface`.
"""

from disinherit.common.extras import explained
from disinherit.common.graph.labels import SEQUENCES

try:
    from disinherit.client.huggingface.batches import adapt, make_loader
    from disinherit.client.huggingface.owner import HuggingFaceOwner
    from disinherit.client.huggingface.rows import read_rows
except Exception as error:
    raise explained(error, __name__) from None

__all__ = ["SEQUENCES", "HuggingFaceOwner", "adapt", "make_loader", "read_rows"]
