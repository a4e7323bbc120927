"""A small causal transformer whose classifier is its embedding."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SPREAD = 0.02
"""Standard deviation of the weights at the start: logits near 0, a loss near log V."""


class LanguageModel(nn.Module):
    """Hidden states of each position; the logits are left to the loss."""

    def __init__(self, vocabulary: int, context: int, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(vocabulary, width))
        self.position = nn.Parameter(torch.empty(context, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                # What is added to the stream 2·layers times must not make it grow.
                added = name.endswith(("project.weight", "contract.weight"))
                nn.init.normal_(parameter, std=SPREAD * (2 * layers) ** (-0.5 if added else 0))

    def forward(self, inputs: Tensor) -> Tensor:
        """Hidden states ``[B, L, D]`` of token ids ``[B, L]``; logits are these · embeddingᵀ."""
        hidden = F.embedding(inputs, self.embedding) + self.position[: inputs.shape[1]]
        for block in self.blocks:
            hidden = block(hidden)
        normed: Tensor = self.norm(hidden)
        return normed


class Block(nn.Module):
    """Attention to what came before, then two layers; each is normed first and added."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.feed_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attend = nn.Linear(width, 3 * width, bias=False)
        self.project = nn.Linear(width, width, bias=False)
        self.expand = nn.Linear(width, 4 * width, bias=False)
        self.contract = nn.Linear(4 * width, width, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """``[B, L, D]`` to the same."""
        hidden = hidden + self.project(self._attention(self.attention_norm(hidden)))
        added: Tensor = self.contract(F.gelu(self.expand(self.feed_norm(hidden))))
        return hidden + added

    def _attention(self, normed: Tensor) -> Tensor:
        split = self.attend(normed).unflatten(-1, (3, self.heads, -1))  # [B, L, 3, H, D/H]
        query, key, value = split.permute(2, 0, 3, 1, 4)  # [B, H, L, D/H] each
        # Padding stands at the end: no position that counts looks at it.
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return mixed.transpose(1, 2).flatten(2)
