"""Where the pixels of a crop lie in the picture, in OpenCV's fixed point or in float64."""

import triton
import triton.language as tl


@triton.jit
def inverse_row(p_matrix, ROW: tl.constexpr):
    """A row of the matrix from crop to picture, float64, in the order of OpenCV's own operations."""
    a, b, x = tl.load(p_matrix), tl.load(p_matrix + 1), tl.load(p_matrix + 2)
    c, d, y = tl.load(p_matrix + 3), tl.load(p_matrix + 4), tl.load(p_matrix + 5)
    a, b, x = a.to(tl.float64), b.to(tl.float64), x.to(tl.float64)
    c, d, y = c.to(tl.float64), d.to(tl.float64), y.to(tl.float64)
    determinant = a * d - b * c
    regular = determinant != 0
    over = tl.where(regular, 1.0 / tl.where(regular, determinant, 1.0), 0.0)
    if ROW == 0:
        first, second = d * over, b * -over
    else:
        first, second = c * -over, a * over
    return first, second, -first * x - second * y


@triton.jit
def nearest_integer(x):
    """float64 -> int32, ties to even; what int32 cannot hold, NaN included, becomes its least, as on x86."""
    m_held = tl.abs(x) < tl.full([], 2147483647.5, tl.float64)
    # Beyond 2^52 doubles are whole numbers, so the sum is rounded and its low bits are the integer.
    whole = x + tl.full([], 6755399441055744.0, tl.float64)  # 1.5 * 2^52
    return tl.where(m_held, whole.to(tl.int64, bitcast=True).to(tl.int32), -2147483648)


@triton.jit
def fixed_positions(per_column, per_row):
    """The pixel before each position and the 32nds beyond it; [ROWS, COLUMNS] int32."""
    across = nearest_integer(per_column * 1024.0)[None, :]
    down = nearest_integer(per_row * 1024.0)[:, None] + 16
    position = (across + down) >> 5
    return position >> 5, position & 31


@triton.jit
def split(position):
    """float64 -> floor as int32 and the rest as float32; far away where the position is, or is NaN."""
    m_near = tl.abs(position) < 268435456.0
    whole = tl.floor(tl.where(m_near, position, -536870912.0))
    return whole.to(tl.int32), tl.where(m_near, position - whole, 0.0).to(tl.float32)


@triton.jit
def float_positions(per_column, per_row):
    """The pixel before each position, int32, and the rest, float32 from 0 to 1; [ROWS, COLUMNS]."""
    whole_x, rest_x = split(per_column)
    whole_y, rest_y = split(per_row)
    rest = rest_x[None, :] + rest_y[:, None]
    carry = rest >= 1.0
    return whole_x[None, :] + whole_y[:, None] + carry.to(tl.int32), rest - carry.to(tl.float32)
