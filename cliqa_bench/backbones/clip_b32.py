"""CLIP ViT-B/32 of OpenAI: its image tower, and the text tower for heads that compare with texts."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cliqa_bench.backbones.base import Backbone
from cliqa_bench.errors import UserError
from cliqa_bench.paths import cache_root

if TYPE_CHECKING:
    from cliqa_bench.backbones._clip_net import ClipNet


class ClipB32(Backbone):
    """CLIP ViT-B/32 (Radford et al., 2021), 512-d features, patches of 32 pixels.

    Attributes:
        sizes: What open_clip's `CLIP` is built from.
    """

    title = "CLIP ViT-B/32"
    citation = (
        "A. Radford, J. W. Kim, C. Hallacy, A. Ramesh, G. Goh, S. Agarwal, G. Sastry, A. Askell, P. Mishkin, "
        "J. Clark, G. Krueger, I. Sutskever: Learning transferable visual models from natural language "
        "supervision. ICML 2021"
    )
    stage_sizes = (768, 768, 768, 768)
    feature_size = 512
    norm_channels = 26 * 768
    n_parameters = 87_849_216
    gmacs = 4.41
    sizes: ClassVar[dict[str, Any]] = {
        "embed_dim": 512,
        "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12},
    }

    @classmethod
    def usual_weights(cls) -> tuple[Path, str]:
        """See the base class: a folder of our own."""
        remedy = (
            "download open_clip_model.safetensors from https://huggingface.co/"
            "timm/vit_base_patch32_clip_224.openai to there, or make it from OpenAI's ViT-B-32.pt with "
            "cliqa-bench weights convert, or name a file with --weights PATH (--weights random trains from "
            "nothing, for trying things out)"
        )
        return cache_root() / "weights" / f"{cls.name}.safetensors", remedy

    @classmethod
    def weights_file(cls, weights: str | None) -> Path | None:
        """See the base class.

        Raises:
            UserError: If open_clip is missing, too.
        """
        if find_spec("open_clip") is None:
            raise UserError(f'the backbone {cls.name} needs the extra: pip install "cliqa_bench[clip]"')
        return super().weights_file(weights)

    @classmethod
    def network(cls, weights: Path | None) -> ClipNet:
        """See the base class; the file is a safetensors file of a whole CLIP, under OpenAI's names."""
        from cliqa_bench.backbones._clip_net import clip_net

        return clip_net(cls.sizes, weights)
