"""L2P: a pool of prompts, tokens that are put before those of an image in a frozen vision transformer.

Wang, Zhang, Lee, Zhang, Sun, Ren, Su, Perot, Dy, Pfister: "Learning to Prompt for Continual Learning", CVPR
2022. An image takes the prompts whose keys are nearest to the frozen network's features of it; the heads
read the outputs of the prompts. Keys are drawn to the images that chose them. All tasks share the pool. See
docs/adapters.md for what differs here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cliqa_bench.errors import UserError
from cliqa_bench.strategies.base import Strategy

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cliqa_bench.backbones.base import Backbone
    from cliqa_bench.learning.learner import Learner
    from cliqa_bench.models.prompts import SharedPrompts
    from cliqa_bench.models.quality import QualityModel


@dataclass
class Prompt(Strategy):
    """Learning to prompt.

    Attributes:
        prompts: Number M of prompts in the pool, at least `top`.
        length: Tokens of a prompt; at least 1.
        top: Prompts N that an image takes; at least 1.
        pull: Factor of the term that draws the chosen keys to the images; at least 0, and with 0 the keys
            stay as they were drawn (paper .5, published code .1).
    """

    rows: ClassVar[dict[str, str]] = {"last": "L2P", "gate": "L2P-KG", "oracle": "L2P-O"}
    citation: ClassVar[str | tuple[str, ...]] = (
        "Z. Wang, Z. Zhang, C.-Y. Lee, H. Zhang, R. Sun, X. Ren et al.: Learning to prompt for continual "
        "learning. CVPR 2022"
    )
    passes: ClassVar[int] = 2

    prompts: int = 10
    length: int = 5
    top: int = 5
    pull: float = 0.5
    warmup_rate: float = 1.0
    main_rate: float = 1.0

    def __post_init__(self) -> None:
        """Checks the hyper-parameters.

        Raises:
            UserError: If one is out of its range.
        """
        super().__post_init__()
        self.require("length", least=1)
        self.require("top", least=1)
        self.require("prompts", least=self.top, why=" (prompt.top)")
        self.require("pull", least=0)

    @property
    def adapts_statistics(self) -> bool:
        """Whether the statistics of the normalisation follow the images: the network is frozen."""
        return False

    def view(self) -> SharedPrompts:
        """Returns the pool that all tasks share."""
        from cliqa_bench.models.prompts import SharedPrompts

        return SharedPrompts(self.prompts, self.length, self.top)

    def check_backbone(self, backbone: type[Backbone]) -> None:
        """Checks that the backbone has tokens.

        Raises:
            UserError: If it has none.
        """
        if not backbone.has_tokens:
            raise UserError(
                f"prompt needs a plain vision transformer, and {backbone.title} is not one; use --backbone "
                "vit_mini, or one of timm's, such as timm:vit_tiny_patch16_224"
            )

    def trainable(self, model: QualityModel, task: int, warmup: bool) -> list[nn.Parameter]:
        """Returns the head; after the warm-up prompts and keys too. The network never learns."""
        return list(model.heads[task].parameters()) if warmup else model.task_parameters(task)

    def penalty(self, learner: Learner) -> Tensor | None:
        """Returns how far the chosen keys are from the images: the sum of 1 - cosine, on average."""
        from cliqa_bench.models.prompts import pool_of

        return self.pull * pool_of(learner.model.net).distance() if self.pull else None

    def progress(self) -> dict[str, Tensor] | None:
        """Returns nothing: the pool is stored with the model."""
        return {}
