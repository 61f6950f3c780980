"""Networks: importing registers the backbone, the decoders and the meta-architecture."""

from . import decode_heads, meta_arch, timm_backbone, vit_backbone  # noqa: F401
