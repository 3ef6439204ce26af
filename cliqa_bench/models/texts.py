"""The texts that LIQE compares a picture with, and their tokens.

For quality, scene and distortion together there are 5 * 9 * 11 = 495 texts, "a photo of a night with noise
artifacts, which is of fair quality" being one. Their tokens are CLIP's: `TOKENS` holds what CLIP's tokenizer
makes of each word that occurs, so that no tokenizer and no vocabulary of 49,408 words is needed.
"""

from __future__ import annotations

from typing import NamedTuple

from cliqa_bench.aspects import DISTORTIONS, QUALITIES, SCENES, Tasks

_TEMPLATES: dict[Tasks, str] = {
    "qsd": "a photo of a {s} with {d} artifacts, which is of {q} quality",
    "qs": "a photo of a {s}, which is of {q} quality",
    "qd": "a photo with {d} artifacts, which is of {q} quality",
    "q": "a photo with {q} quality",
}

_START, _END = 49406, 49407

TOKENS = {
    ",": (267,),
    "a": (320,),
    "animal": (4668,),
    "artifacts": (30249,),
    "bad": (2103,),
    "blur": (27976,),
    "cityscape": (40808,),
    "color": (3140,),
    "compression": (25638,),
    "contrast": (18501,),
    "fair": (2849,),
    "good": (886,),
    "human": (2751,),
    "indoor": (9546,),
    "is": (533,),
    "jpeg": (73, 11207),
    "jpeg2000": (73, 11207, 273, 271, 271, 271),
    "landscape": (5727,),
    "night": (930,),
    "noise": (9307,),
    "of": (539,),
    "other": (1010,),
    "others": (3326,),
    "overexposure": (8649, 13002, 35539),
    "perfect": (1878,),
    "photo": (1125,),
    "plant": (3912,),
    "poor": (3665,),
    "quality": (3027,),
    "quantization": (31540, 3683),
    "spatial": (22022,),
    "still_life": (1170, 318, 970),
    "underexposure": (21675, 87, 35539),
    "which": (1448,),
    "with": (593,),
}
"""Word -> its tokens in CLIP's vocabulary."""

VOCABULARY = tuple(sorted({_START, _END, *(token for tokens in TOKENS.values() for token in tokens)}))
"""The 45 tokens of CLIP's vocabulary that occur, ascending; what pads a row is none of them."""

LONGEST = 24
"""Tokens of the longest text, with those that begin and end it."""


def axes(tasks: Tasks) -> tuple[int, int, int]:
    """Returns how many qualities, scenes and distortions the texts tell apart; 1 for an aspect left out."""
    return len(QUALITIES), len(SCENES) if "s" in tasks else 1, len(DISTORTIONS) if "d" in tasks else 1


def texts(tasks: Tasks = "qsd") -> list[str]:
    """Returns all texts: those of the first quality first; the distortion changes from one to the next.

    The article is always "a", as in the published code.
    """
    _, n_scenes, n_distortions = axes(tasks)
    return [
        _TEMPLATES[tasks].format(q=quality, s=scene, d=distortion)
        for quality in QUALITIES
        for scene in SCENES[:n_scenes]
        for distortion in DISTORTIONS[:n_distortions]
    ]


def rows_of(tasks: Tasks = "qsd") -> list[list[int]]:
    """Returns the tokens of each text, in CLIP's vocabulary, without any that pad."""
    return [
        [_START, *(token for word in text.replace(",", " ,").split() for token in TOKENS[word]), _END]
        for text in texts(tasks)
    ]


class TextTree(NamedTuple):
    """Texts as a tree: beginnings that several share are one node.

    What a causal transformer makes of a token depends on the tokens before it alone, so it has to be worked
    out once for a beginning, however many texts go on from there: 2203 tokens instead of the 8615 that the
    495 texts have.

    Attributes:
        tokens: Of each node: its token's position in `VOCABULARY`.
        depths: Of each node: its position in the text, from 0.
        paths: Of each node: the nodes from the first one to itself.
        ends: Of each text: the node of its last token.
    """

    tokens: list[int]
    depths: list[int]
    paths: list[list[int]]
    ends: list[int]


def tree_of(tasks: Tasks = "qsd") -> TextTree:
    """Returns the texts as a tree; a node comes after the one before it in its texts."""
    nodes: dict[tuple[int, ...], int] = {}
    tree = TextTree([], [], [], [])
    for row in rows_of(tasks):
        path: list[int] = []
        for depth, token in enumerate(row):
            beginning = tuple(row[: depth + 1])
            if beginning not in nodes:
                nodes[beginning] = len(nodes)
                tree.tokens.append(VOCABULARY.index(token))
                tree.depths.append(depth)
                tree.paths.append([*path, nodes[beginning]])
            path = tree.paths[nodes[beginning]]
        tree.ends.append(path[-1])
    return tree
