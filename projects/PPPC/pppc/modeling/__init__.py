"""Networks: importing registers the backbone and the decoders with Detectron2."""

from . import decode_heads, timm_backbone  # noqa: F401
