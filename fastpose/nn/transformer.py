"""DETR's encoder and decoder (arXiv:2005.12872) with the official parameter names, batch first."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEADS = 8
FFN_CHANNELS = 2048


class Attention(nn.Module):
    """Multi-head attention with the parameters of nn.MultiheadAttention and no dropout.

    query (B, T, C), key and value (B, S, C) -> (B, T, C). C must be a multiple of `heads` (else ValueError).
    Scores never reach memory where PyTorch has a fused kernel.
    """

    def __init__(self, channels: int, heads: int = HEADS) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"channels: expected a multiple of {heads} heads, got {channels}")
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * channels, channels))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * channels))
        self.out_proj = nn.Linear(channels, channels)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        q, k, v = (
            F.linear(x, weight, bias).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for x, weight, bias in zip((query, key, value), weights, biases, strict=True)
        )
        return self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class EncoderLayer(nn.Module):
    """Self-attention, then two linear layers, each added and normalised: (B, S, C) -> (B, S, C)."""

    def __init__(self, channels: int, ffn_channels: int = FFN_CHANNELS) -> None:
        super().__init__()
        self.self_attn = Attention(channels)
        self.linear1 = nn.Linear(channels, ffn_channels)
        self.linear2 = nn.Linear(ffn_channels, channels)
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """Positions enter queries and keys alone."""
        placed = x + position
        x = self.norm1(x + self.self_attn(placed, placed, x))
        return self.norm2(x + self.linear2(F.relu(self.linear1(x))))


class DecoderLayer(nn.Module):
    """Self-attention of the queries, attention to the memory, two linear layers: (B, Q, C) -> (B, Q, C)."""

    def __init__(self, channels: int, ffn_channels: int = FFN_CHANNELS) -> None:
        super().__init__()
        self.self_attn = Attention(channels)
        self.multihead_attn = Attention(channels)
        self.linear1 = nn.Linear(channels, ffn_channels)
        self.linear2 = nn.Linear(ffn_channels, channels)
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.norm3 = nn.LayerNorm(channels)

    def forward(self, x: Tensor, memory: Tensor, placed_memory: Tensor, queries: Tensor) -> Tensor:
        """`placed_memory` is the memory with its positions; `queries` are the learned positions of x."""
        placed = x + queries
        x = self.norm1(x + self.self_attn(placed, placed, x))
        x = self.norm2(x + self.multihead_attn(x + queries, placed_memory, memory))
        return self.norm3(x + self.linear2(F.relu(self.linear1(x))))


class Encoder(nn.Module):
    """`layers` encoder layers in a row."""

    def __init__(self, channels: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(channels) for _ in range(layers))

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, position)
        return x


class Decoder(nn.Module):
    """`layers` decoder layers in a row; one norm is taken of each one's output."""

    def __init__(self, channels: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(channels) for _ in range(layers))
        self.norm = nn.LayerNorm(channels)

    def forward(self, memory: Tensor, position: Tensor, queries: Tensor) -> Tensor:
        """Returns (layers, B, Q, C)."""
        placed_memory = memory + position
        x = torch.zeros_like(queries).expand(memory.shape[0], -1, -1)
        outputs = []
        for layer in self.layers:
            x = layer(x, memory, placed_memory, queries)
            outputs.append(self.norm(x))
        return torch.stack(outputs)


class Transformer(nn.Module):
    """Tokens (B, S, C), their positions (S, C), queries (Q, C) -> the decoder's layers (layers, B, Q, C).

    Post-norm, without dropout, as prtr lib/models/transformer.py is trained.
    """

    def __init__(self, channels: int = 256, encoder_layers: int = 6, decoder_layers: int = 6) -> None:
        super().__init__()
        self.encoder = Encoder(channels, encoder_layers)
        self.decoder = Decoder(channels, decoder_layers)

    def reset_parameters(self) -> None:
        """Xavier-uniform matrices; biases 0 in attention, PyTorch's own elsewhere, as in DETR."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.LayerNorm):
                module.reset_parameters()
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
            elif name.endswith(("in_proj_bias", "out_proj.bias")):
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor, position: Tensor, queries: Tensor) -> Tensor:
        return self.decoder(self.encoder(x, position), position, queries)
