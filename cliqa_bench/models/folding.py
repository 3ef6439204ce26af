"""Networks in evaluation: batch normalisation folded into the convolution before it.

Outside training a BatchNorm layer multiplies and adds constants, and so does a convolution: the two are one
convolution with other weights, exactly but for rounding. It saves a pass over every feature map, about a
fifth of the time of S-CNN on a CPU and a third with bfloat16.
"""

from __future__ import annotations

import copy
import itertools
from collections import Counter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cliqa_bench.backbones.staged import FeatureNet
from cliqa_bench.models.heads import CosineHead, score_of
from cliqa_bench.models.quality import QualityModel, cut_windows
from cliqa_bench.models.views import TaskNorm, TaskNorms, TaskView, replace_module
from cliqa_bench.system.signals import raise_if_stopped


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Looks into everything but layers and the tasks' normalisation."""
        return isinstance(m, TaskNorm) or super().is_leaf_module(m, module_qualified_name)


def foldable(net: FeatureNet) -> list[tuple[str, str]]:
    """Finds the convolutions whose output goes into one batch normalisation and nowhere else.

    Returns:
        Names of the two modules. Empty for a network whose forward pass depends on the images: it cannot be
        traced, and is used as it is.
    """
    try:
        graph = _Tracer().trace(net, {"fixed": None})
    except Exception:  # fx raises many kinds of errors for what it cannot trace
        raise_if_stopped()
        return []
    modules = dict(net.named_modules())
    called = Counter(node.target for node in graph.nodes if node.op == "call_module")
    found = []
    for node in graph.nodes:
        source = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(source, fx.Node) or source.op != "call_module" or len(source.users) > 1:
            continue
        names = str(source.target), str(node.target)
        conv, norm = (modules[name] for name in names)
        if called[names[0]] == called[names[1]] == 1 and type(conv) is nn.Conv2d and _is_fixed(norm):
            found.append(names)
    return found


def _is_fixed(norm: nn.Module) -> bool:
    """Tells whether a layer is a batch normalisation that keeps statistics, and nothing more."""
    layer = norm.pristine if isinstance(norm, TaskNorm) else norm
    return type(layer) is nn.BatchNorm2d and layer.running_mean is not None


def folded(net: FeatureNet, view: TaskView | None = None, task: int | None = None) -> FeatureNet:
    """Returns a copy of a network that is not to learn: for scoring, or for teaching.

    Args:
        net: The network; it is left as it is, and what is not folded is shared with it.
        view: How tasks come by features of their own, if they do.
        task: Whose features; None for those of the pre-trained network.

    Returns:
        The network in evaluation mode. Its outputs differ by rounding only.
    """
    view = view or TaskNorms()
    tensors = itertools.chain(net.parameters(), net.buffers()) if view.leaves_tensors else ()
    copied = copy.deepcopy(net, {id(tensor): tensor for tensor in tensors}).eval()
    view.fix(copied, task)
    for conv_name, norm_name in foldable(copied):  # not before: a view may put something between the two
        conv, norm = copied.get_submodule(conv_name), copied.get_submodule(norm_name)
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        replace_module(copied, conv_name, fuse_conv_bn_eval(conv, norm).eval())
        replace_module(copied, norm_name, nn.Identity())
    return copied


def cast_weights(nets: nn.Module, precision: str) -> None:
    """Holds weights as autocast would round them again for every batch; outputs keep their bits.

    Args:
        nets: Copies that are for scoring only, as `folded` returns them.
        precision: What they are scored in; nothing is changed for "fp32".
    """
    if precision != "bf16":
        return
    for module in nets.modules():
        if type(module) in (nn.Conv2d, nn.Linear):
            for name, tensor in list(module.named_parameters(recurse=False)):
                # a new one: the model that it was copied from may share the old
                setattr(module, name, nn.Parameter(tensor.detach().to(torch.bfloat16), requires_grad=False))


class Scorer(nn.Module):
    """What a quality model computes outside training, with its normalisation folded.

    It is a snapshot: what the model learns later does not reach it.

    Args:
        model: The model; it may be in training mode.
        tasks: Whose heads, in this order; None for all.
    """

    heads: Tensor | nn.ModuleList

    def __init__(self, model: QualityModel, tasks: list[int] | None = None) -> None:
        super().__init__()
        tasks = list(range(model.n_tasks)) if tasks is None else tasks
        heads = [model.heads[task] for task in tasks]
        self.windows = model.windows
        with torch.no_grad():
            self.nets = nn.ModuleList(
                folded(model.net, model.view, task) for task in (tasks if model.own_features else [None])
            )
            if all(type(head) is CosineHead for head in heads):
                weights = torch.cat([head.weight for head in heads]).float()  # type: ignore[misc]
                self.register_buffer("heads", functional.normalize(weights, dim=1))
            else:
                self.heads = nn.ModuleList(copy.deepcopy(head).eval() for head in heads)

    def ranges(self) -> NDArray[np.float64]:
        """Returns the least and the greatest score that each of the usual heads can give, (tasks, 2).

        Features have unit length, so a score lies within the head's length of 0, which is 1. Where features
        cannot be negative, the weights of one sign alone make the greatest score, and those of the other the
        least: features that are 0 wherever the other weights are reach them.
        """
        assert isinstance(self.heads, Tensor)
        weights = self.heads.detach().cpu().double().numpy()
        if self.windows is not None or not all(net.non_negative for net in self.nets):
            length = np.linalg.norm(weights, axis=1)
            return np.stack([-length, length], axis=1)
        low, high = (np.linalg.norm(np.clip(weights * sign, 0, None), axis=1) for sign in (-1, 1))
        return np.stack([-low, high], axis=1)

    def fixed(self, images: Tensor) -> Tensor | None:
        """Returns the output of the part that never learns, see `FeatureNet.fixed`.

        None where they are looked at in windows.
        """
        if self.windows is not None:
            return None
        found: Tensor | None = self.nets[0].fixed(images)  # type: ignore[operator]  # taken for a tensor
        return found

    def forward(self, images: Tensor, fixed: Tensor | None = None) -> Tensor:
        """Scores images, (B, 3, H, W), with every head: (B, heads), in [-1, 1] for the usual heads.

        The network runs once, or once per task where tasks have features of their own.

        Args:
            images: ImageNet-normalised.
            fixed: What `fixed` returned for them, if that is known already.
        """
        if isinstance(self.heads, Tensor):  # (tasks, d)
            finals = self._read_by_heads(images, fixed)
            with torch.autocast(images.device.type, enabled=False):
                return (finals * self.heads).sum(dim=2)
        said = zip(self.heads, self.said(images, fixed), strict=True)
        return torch.stack([score_of(*one) for one in said], dim=1)

    def said(self, images: Tensor, fixed: Tensor | None = None) -> list[Tensor]:
        """Returns what each head says of images, see `heads.RichHead`; not for the usual heads.

        Args:
            images: As in `forward`.
            fixed: As in `forward`.
        """
        assert isinstance(self.heads, nn.ModuleList)
        finals = self._read_by_heads(images, fixed)
        of_task = finals.expand(-1, len(self.heads), *finals.shape[2:]).unbind(dim=1)
        with torch.autocast(images.device.type, enabled=False):
            return [head(x) for head, x in zip(self.heads, of_task, strict=True)]

    def _read_by_heads(self, images: Tensor, fixed: Tensor | None) -> Tensor:
        """Returns the features of images, (B, tasks or 1, d), or of their windows, (B, tasks or 1, U, d)."""
        if self.windows is None:
            return self._finals(images, fixed).float()
        cut = cut_windows(images, self.windows)
        finals: Tensor = self._finals(cut.flatten(0, 1)).unflatten(0, cut.shape[:2])
        return finals.transpose(1, 2).float()

    def _finals(self, images: Tensor, fixed: Tensor | None = None) -> Tensor:
        """Returns the final features of images, of each network, (B, tasks or 1, d)."""
        if fixed is None:
            fixed = self.nets[0].fixed(images)  # type: ignore[operator]  # taken for a tensor
        return torch.stack([net(images, fixed).final for net in self.nets], dim=1)


class MergedHead(nn.Module):
    """A network that gives a single score, in the place of a `Scorer`.

    Args:
        network: Images (B, 3, H, W) to (B, 1).
    """

    heads = (None,)

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.eval()

    def fixed(self, images: Tensor) -> Tensor | None:
        """Returns None: nothing is shared with other networks."""
        return None

    def forward(self, images: Tensor, fixed: Tensor | None = None) -> Tensor:
        """Scores images: (B, 1)."""
        scores: Tensor = self.network(images)
        return scores
