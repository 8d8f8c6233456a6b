"""EncNet's context encoding head (FastFCN paper, section 3.2, after Zhang et al. 2018, "Context Encoding")."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.networks.layers import conv_block

__all__ = ["Encoding", "EncodingHead", "presence_loss"]

_CODES = 32


class Encoding(nn.Module):
    """Features `[N,C,H,W]` to `[N,codes,C]`: the sums of their softly assigned residuals to each codeword.

    A pixel x belongs to codeword d_k by softmax_k(-s_k |x - d_k|^2). Sums over pixels are matrix products, so that no
    `[pixels,codes,C]` tensor is made.
    """

    def __init__(self, channels: int, codes: int) -> None:
        super().__init__()
        bound = (codes * channels) ** -0.5
        self.codewords = nn.Parameter(torch.empty(codes, channels).uniform_(-bound, bound))
        self.scale = nn.Parameter(torch.empty(codes).uniform_(-1, 0))  # -s_k: starts as a soft assignment

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.flatten(2)  # [N,C,P]
        squared = pixels.square().sum(1, keepdim=True) + self.codewords.square().sum(1, keepdim=True)  # [N,K,P]
        distances = squared - 2 * (self.codewords @ pixels)
        shares = (self.scale[:, None] * distances).softmax(1)
        return shares @ pixels.transpose(1, 2) - shares.sum(2, keepdim=True) * self.codewords


class EncodingHead(nn.Module):
    """A 3x3 block, whose channels are weighted by what the encoding makes of the whole image, then a classifier.

    In training a second output says which classes occur in the image (the SE branch).
    """

    def __init__(self, inputs: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.reduce = conv_block(inputs, channels, 3)
        self.project = conv_block(channels, channels)
        self.encoding = Encoding(channels, _CODES)
        self.norm = nn.BatchNorm1d(_CODES)
        self.gate = nn.Linear(channels, channels)
        self.presence = nn.Linear(channels, num_classes)
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.scores_and_presence(x)[0]

    def scores_and_presence(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `[N,classes,h,w]` of the pixels, and `[N,classes]` of the classes' presence."""
        x = self.reduce(x)
        code = F.relu(self.norm(self.encoding(self.project(x)))).mean(1)  # [N,C]
        gate = self.gate(code).sigmoid().unsqueeze(-1).unsqueeze(-1)
        return self.classifier(F.relu(x + x * gate)), self.presence(code)


def presence_loss(presence: Tensor, labels: Tensor) -> Tensor:
    """Binary cross entropy of `[N,classes]` against which classes the labels `[N,H,W]` hold.

    Each class counts alike, however small its objects; ignored pixels hold none.
    """
    classes = torch.arange(presence.shape[1], device=labels.device)
    there = torch.stack([torch.isin(classes, image) for image in labels]).to(presence.dtype)
    return F.binary_cross_entropy_with_logits(presence, there)
