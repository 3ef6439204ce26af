"""Any model of the library timm that has normalisation layers and takes images of any size."""

from __future__ import annotations

import difflib
import functools
import math
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any, ClassVar, cast

from cliqa_bench.backbones.base import Backbone
from cliqa_bench.errors import UserError

if TYPE_CHECKING:
    from cliqa_bench.backbones._timm_net import TimmNet

ANY_SIZE: dict[str, Any] = {"dynamic_img_size": True, "dynamic_img_pad": True}
"""Lets a vision transformer take images of any size; models without these options take them as they are."""

ODD_SIZE = (97, 131)
"""Height and width on which a model shows that it takes images of any size."""


class TimmBackbone(Backbone):
    """What the classes of timm's models share; `find` makes one per model.

    Attributes:
        model: The model's name in timm, with its tag if one was given.
        options: What timm's `create_model` is given besides.
        blocks: Which intermediate outputs are the stages, as timm counts them, from 0.
        norm_parameters: Parameters of all normalisation layers together.
    """

    model: ClassVar[str]
    options: ClassVar[dict[str, Any]]
    blocks: ClassVar[list[int]]
    norm_parameters: ClassVar[int]
    citation: ClassVar[str | tuple[str, ...]] = (
        "R. Wightman: PyTorch Image Models. GitHub, 2019, doi:10.5281/zenodo.4414861"
    )

    @classmethod
    def usual_weights(cls) -> tuple[Path, str]:
        """See the base class: the Hugging Face hub's cache, which timm uses."""
        import timm
        from huggingface_hub import constants, try_to_load_from_cache

        told = "name a file with --weights PATH (--weights random starts from scratch, for trying things out)"
        source = timm.get_pretrained_cfg(cls.model)
        if source is None or not source.hf_hub_id:
            return Path(constants.HF_HUB_CACHE), f"timm has none on the Hugging Face hub; {told}"
        for name in (source.hf_hub_filename or "model.safetensors", "pytorch_model.bin"):
            found = try_to_load_from_cache(source.hf_hub_id, name, cache_dir=constants.HF_HUB_CACHE)
            if isinstance(found, str):
                return Path(found), ""
        folder = Path(constants.HF_HUB_CACHE) / f"models--{source.hf_hub_id.replace('/', '--')}"
        return folder, f"download model.safetensors from https://huggingface.co/{source.hf_hub_id} and {told}"

    @classmethod
    def network(cls, weights: Path | None) -> TimmNet:
        """See the base class; the file may be a safetensors or a torch file in timm's own layout."""
        import timm

        from cliqa_bench.backbones._timm_net import timm_net

        if weights is None:
            return timm_net(timm.create_model(cls.model, **cls.options), cls.blocks)
        try:
            net = cls._loaded(file=str(weights))
        except (RuntimeError, KeyError):  # because the classifier is missing?
            net = cls._loaded(state_dict=cls._with_own_classifier(weights), label_offset=0)
            net.pretrained_cfg.pop("state_dict")
        return timm_net(net, cls.blocks)

    @classmethod
    def _loaded(cls, **source: Any) -> Any:
        """Returns the model with weights from the place that the fields of timm's `PretrainedCfg` name."""
        import timm

        overlay = {**source, "custom_load": False}
        return timm.create_model(cls.model, pretrained=True, pretrained_cfg_overlay=overlay, **cls.options)

    @classmethod
    def _with_own_classifier(cls, weights: Path) -> dict[str, Any]:
        import timm
        from timm.models import load_state_dict

        from cliqa_bench.backbones._classifier import with_classifier_of

        whole, bare = (timm.create_model(cls.model, **cls.options) for _ in range(2))
        bare.reset_classifier(0)
        names = whole.state_dict().keys() - bare.state_dict().keys()
        return with_classifier_of(whole, names, load_state_dict(str(weights)), weights)

    @classmethod
    def task_parameters(cls) -> int:
        """See the base class; some models have a gamma and no beta."""
        return cls.norm_parameters + cls.feature_size


@functools.cache
def find(name: str) -> type[Backbone]:
    """Makes the class of one of timm's models; its weights are not built.

    The stages of a model that works at several resolutions are its last four; those of one that keeps its
    resolution, such as a ViT, lie at 1/4, 2/4, 3/4 and 4/4 of its depth. The gate reads the last two. The
    heads read what timm's own classifier would read, including any normalisation that comes before it.

    Args:
        name: As timm writes it, with or without the tag of the weights: "vit_tiny_patch16_224.augreg_in21k".

    Raises:
        UserError: If timm is missing, has no such model, or the model has no normalisation layers that tasks
            could own, no intermediate features, or takes images of one size only.
    """
    if find_spec("timm") is None:
        raise UserError(f'the backbone timm:{name} needs the extra: pip install "cliqa_bench[timm]"')
    import timm

    known = {*timm.list_models(), *timm.list_pretrained()}
    if name not in known:
        near = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.5)
        hint = f" (did you mean {', '.join(map(repr, near))}?)" if near else ""
        raise UserError(f"unknown model of timm {name!r}{hint}; timm.list_models() gives them all")
    try:
        facts = _examine(name)
    except UserError:
        raise
    except Exception as error:  # the models raise many kinds of errors
        reason = shorten(str(error) or type(error).__name__, 160)
        raise UserError(
            f"timm:{name} cannot be a backbone: it must give intermediate features of images of any size "
            f"({reason})"
        ) from error
    made = cast("type[Backbone]", type("Timm", (TimmBackbone,), {"title": name, "model": name, **facts}))
    made.name = f"timm-{name}"  # goes into file names
    return made


def _examine(name: str) -> dict[str, Any]:
    """Finds out what a model is like, with shapes instead of numbers: nothing is drawn or computed."""
    import timm
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from cliqa_bench.backbones._timm_net import timm_net
    from cliqa_bench.backbones.staged import NORMS, TokenNet

    options = ANY_SIZE
    with torch.device("meta"), torch.no_grad():
        try:
            model = timm.create_model(name, **options)
        except TypeError:
            options = {}
            model = timm.create_model(name)
        model.eval()
        _, maps = model.forward_intermediates(torch.empty(1, 3, 224, 224))
        blocks = _blocks([tuple(m.shape[2:]) for m in maps])
        net = timm_net(model, blocks).eval()
        with FlopCounterMode(display=False) as counter:
            final, stages = net(torch.empty(1, 3, 224, 224))
        net(torch.empty(1, 3, *ODD_SIZE))
    norms = [[p.numel() for p in m.parameters()] for m in net.modules() if isinstance(m, NORMS)]
    if not sum(map(sum, norms)):
        raise UserError(f"timm:{name} has no BatchNorm, LayerNorm or GroupNorm that tasks could own")
    return {
        "stage_sizes": tuple(stage.shape[1] for stage in stages),
        "gate_stages": tuple(range(1, len(stages) + 1))[-2:],
        "feature_size": final.shape[1],
        "norm_channels": sum(max(sizes, default=0) for sizes in norms),
        "norm_parameters": sum(map(sum, norms)),
        "n_parameters": sum(p.numel() for p in net.parameters()),
        "gmacs": counter.get_total_flops() / 2e9,
        "has_tokens": isinstance(net, TokenNet),
        "options": options,
        "blocks": blocks,
    }


def _blocks(sizes: Sequence[tuple[int, ...]]) -> list[int]:
    """Chooses the stages among intermediate outputs, given their heights and widths."""
    n, stages = len(sizes), min(4, len(sizes))
    if len(set(sizes)) > 1:
        return list(range(n - stages, n))
    return [math.ceil(n * quarter / stages) - 1 for quarter in range(1, stages + 1)]
