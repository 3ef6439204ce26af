#!/usr/bin/env bash
# LIQE of IQA-PyTorch (pyiqa) scores with the text features of the first weights that it was ever given.
#
# A score compares a picture with texts. Their features depend on the weights of the text tower, and pyiqa keeps them in
# a file of its cache whose name depends on neither the weights nor the texts (only the published model "mix" has a file
# of its own). So a second checkpoint, such as one's own fine-tuned LIQE, is read with the texts of the first one, without
# a word. A model of 495 texts (mtl=True) and one of five share that file, too: made after the former, the latter returns
# 99 scores for one picture. Deleting ~/.cache/torch/hub/pyiqa/liqe_text_feat*.pt before each change of weights avoids
# both.
#
# Here both models are small CLIPs with random weights, in the place of the downloaded ones; all else is as published.
#
# Versions: pyiqa 0.1.16 (openai-clip 1.0.1, torch 2.14.1, torchvision 0.29.1), Python 3.11, Linux.
# Output seen:
#   texts of the second model: as the first one's True as its own tower's False
#   scores of one picture: 99
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet torch==2.14.1 torchvision==0.29.1 numpy==2.4.6 setuptools==80.9.0 \
  ftfy==6.3.1 regex==2026.11.19 tqdm==4.70.1 pyyaml==6.0.4 requests==2.34.2 huggingface-hub==2.4.0 scipy==1.17.1 \
  pillow==13.0.0 opencv-python-headless==4.13.0.92
"$work/venv/bin/python" -m pip install --quiet --no-deps pyiqa==0.1.16 openai-clip==1.0.1
export HOME="$work" TORCH_HOME="$work/torch"
mkdir -p "$TORCH_HOME/hub/pyiqa"  # as a download would
cat >"$work/texts.py" <<'PY'
import itertools
import warnings

warnings.simplefilter("ignore")
import clip
import torch
from pyiqa.archs import clip_model, liqe_arch
from pyiqa.archs.liqe_arch import LIQE, dists_map, qualitys, scenes


def small_clip(name, device):
    return clip_model.CLIP(16, 224, 1, 64, 32, 77, 49408, 32, 2, 1).eval()


liqe_arch.load = small_clip  # instead of a download
with torch.no_grad():
    torch.manual_seed(1)
    first = LIQE(pretrained=False, mtl=True)
    torch.manual_seed(2)
    second = LIQE(pretrained=False, mtl=True)
    words = itertools.product(qualitys, scenes, dists_map)
    texts = [f"a photo of a {s} with {d} artifacts, which is of {q} quality" for q, s, d in words]
    own = second.clip_model.encode_text(clip.tokenize(texts))
    own = own / own.norm(dim=1, keepdim=True)
    used = second.text_features
    as_first, as_own = torch.equal(used, first.text_features), torch.allclose(used, own, atol=1e-3)
    print("texts of the second model: as the first one's", as_first, "as its own tower's", as_own)
    plain = LIQE(pretrained=False).eval()
    print("scores of one picture:", plain(torch.rand(1, 3, 384, 512)).numel())
PY
seen="$("$work/venv/bin/python" "$work/texts.py" | grep -v '^Generating')"
echo "$seen"
expected="texts of the second model: as the first one's True as its own tower's False
scores of one picture: 99"
if [ "$seen" != "$expected" ]; then
  echo "this has changed; expected: $expected" >&2
  exit 1
fi
