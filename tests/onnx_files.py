"""A network in ONNX format, written by hand (github.com/onnx/onnx, onnx.proto): as SFace, from a face to a vector."""

from pathlib import Path

CELLS = 4  # a side; the vector holds the mean of each cell, channel by channel


def write_pooling_network(path: Path, side: int = 112, name: str = "data") -> Path:
    """(1, 3, side, side) float32 -> (1, 3 * CELLS * CELLS) float32, the means of cells."""
    kernel = [side // CELLS] * 2
    pool = _text(1, name) + _text(2, "cells") + _text(4, "AveragePool")
    pool += b"".join(
        _field(5, _text(1, key) + _numbers(8, kernel) + _number(20, 7)) for key in ("kernel_shape", "strides")
    )
    flatten = _text(1, "cells") + _text(2, "fc1") + _text(4, "Flatten")
    graph = _field(1, pool) + _field(1, flatten) + _text(2, "pooling")
    graph += _field(11, _tensor(name, [1, 3, side, side])) + _field(12, _tensor("fc1", [1, 3 * CELLS**2]))
    path.write_bytes(_number(1, 8) + _field(7, graph) + _field(8, _number(2, 13)))
    return path


def _tensor(name: str, shape: list[int]) -> bytes:
    dimensions = b"".join(_field(1, _number(1, length)) for length in shape)
    return _text(1, name) + _field(2, _field(1, _number(1, 1) + _field(2, dimensions)))  # 1: float32


def _varint(value: int) -> bytes:
    low = value & 127
    return bytes([low]) if value < 128 else bytes([low | 128]) + _varint(value >> 7)


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _text(number: int, text: str) -> bytes:
    return _field(number, text.encode())


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _numbers(number: int, values: list[int]) -> bytes:
    return b"".join(_number(number, value) for value in values)
