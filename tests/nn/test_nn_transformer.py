"""DETR's transformer against PyTorch's own layers, the sine positions against their formula."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from compile_checks import graph_breaks
from torch import Tensor, nn

from fastpose.nn.position import sine_positions
from fastpose.nn.transformer import (
    FFN_CHANNELS,
    HEADS,
    Attention,
    Decoder,
    DecoderLayer,
    Encoder,
    Transformer,
)

CHANNELS = 16


def randomized(module: nn.Module) -> Any:
    """In float64, with biases and norms that are not the identity."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module.double()


def official(module: nn.Module) -> nn.MultiheadAttention:
    twin = nn.MultiheadAttention(CHANNELS, HEADS, batch_first=True).double()
    twin.load_state_dict(module.state_dict(), strict=True)
    return twin


def tokens(*shape: int) -> Tensor:
    return torch.randn(*shape, CHANNELS, dtype=torch.float64)


def test_attention_is_pytorchs_under_the_same_names() -> None:
    attention = randomized(Attention(CHANNELS))
    query, key, value = tokens(3, 5), tokens(3, 7), tokens(3, 7)
    want, _ = official(attention)(query, key, value)
    torch.testing.assert_close(attention(query, key, value), want)


def test_attention_needs_whole_heads() -> None:
    with pytest.raises(ValueError, match="a multiple of 8 heads, got 12"):
        Attention(12)


def test_encoder_without_positions_is_pytorchs() -> None:
    encoder = randomized(Encoder(CHANNELS, 2))
    layer = nn.TransformerEncoderLayer(CHANNELS, HEADS, FFN_CHANNELS, dropout=0.0, batch_first=True)
    twin = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).double()
    twin.load_state_dict(encoder.state_dict(), strict=True)
    x = tokens(2, 6)
    torch.testing.assert_close(encoder(x, torch.zeros(6, CHANNELS)), twin(x))


def test_positions_enter_queries_and_keys_alone() -> None:
    layer = randomized(Encoder(CHANNELS, 1)).layers[0]
    x, position = tokens(2, 6), tokens(6)
    attended, _ = official(layer.self_attn)(x + position, x + position, x)
    middle = layer.norm1(x + attended)
    want = layer.norm2(middle + layer.linear2(layer.linear1(middle).relu()))
    torch.testing.assert_close(layer(x, position), want)


def test_decoder_layer_places_queries_and_memory() -> None:
    layer = randomized(DecoderLayer(CHANNELS))
    x, memory, queries, position = tokens(2, 4), tokens(2, 6), tokens(4), tokens(6)
    attended, _ = official(layer.self_attn)(x + queries, x + queries, x)
    middle = layer.norm1(x + attended)
    crossed, _ = official(layer.multihead_attn)(middle + queries, memory + position, memory)
    middle = layer.norm2(middle + crossed)
    want = layer.norm3(middle + layer.linear2(layer.linear1(middle).relu()))
    torch.testing.assert_close(layer(x, memory, memory + position, queries), want)


def test_decoder_starts_from_zeros_and_normalises_every_layer() -> None:
    decoder = randomized(Decoder(CHANNELS, 3))
    memory, queries, position = tokens(2, 6), tokens(4), tokens(6)
    x = torch.zeros(2, 4, CHANNELS, dtype=torch.float64)
    wanted = []
    for layer in decoder.layers:
        x = layer(x, memory, memory + position, queries)
        wanted.append(decoder.norm(x))
    torch.testing.assert_close(decoder(memory, position, queries), torch.stack(wanted))


def test_fresh_parameters_are_detrs() -> None:
    transformer = Transformer(256, 1, 1)
    for parameter in transformer.parameters():
        nn.init.constant_(parameter, 9.0)
    transformer.reset_parameters()
    layer = transformer.decoder.layers[0]
    for parameter in (
        layer.self_attn.in_proj_weight,
        layer.multihead_attn.out_proj.weight,
        layer.linear1.weight,
    ):
        bound = math.sqrt(6 / sum(parameter.shape))
        assert 0.99 * bound < parameter.abs().max().item() <= bound
    assert (layer.self_attn.in_proj_bias == 0).all()
    assert (layer.multihead_attn.out_proj.bias == 0).all()
    assert 0 < layer.linear1.bias.abs().max().item() <= 1 / 16
    assert (layer.norm3.weight == 1).all()
    assert (layer.norm3.bias == 0).all()


def test_compiles_whole() -> None:
    transformer = Transformer(CHANNELS, 1, 1)
    assert (
        graph_breaks(
            transformer, torch.randn(2, 6, CHANNELS), torch.randn(6, CHANNELS), torch.randn(3, CHANNELS)
        )
        == 0
    )


@pytest.mark.parametrize(("height", "width"), [(8, 8), (12, 9), (1, 3)], ids=str)
def test_sine_positions_follow_the_formula(height: int, width: int) -> None:
    channels = 24
    want = torch.zeros(height * width, channels, dtype=torch.float64)
    for y in range(height):
        for x in range(width):
            for i in range(channels // 2):
                rate = 10000 ** (2 * (i // 2) / (channels // 2))
                wave = math.sin if i % 2 == 0 else math.cos
                row, column = (y + 1) / (height + 1e-6), (x + 1) / (width + 1e-6)
                want[y * width + x, i] = wave(2 * math.pi * row / rate)
                want[y * width + x, channels // 2 + i] = wave(2 * math.pi * column / rate)
    got = sine_positions(height, width, channels, torch.device("cpu"))
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), want, rtol=0, atol=2e-6)


def test_sine_positions_need_four_waves() -> None:
    with pytest.raises(ValueError, match="a multiple of 4, got 6"):
        sine_positions(2, 2, 6, torch.device("cpu"))
