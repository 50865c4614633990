"""Powers to the last bit as Go has them (C's differ in it now and then)."""

from __future__ import annotations

import math

from shared.expressions.operations.exponentials import exponential, logarithm

_HUGE = 2.0**63
_FAR_EXPONENT = 1 << 12


def power(base: float, exponent: float) -> float:
    """`base` to the `exponent`, by the IEEE's rules where there is no finite answer."""
    if exponent == 0 or base == 1:
        return 1.0
    if exponent == 1:
        return base
    if base != base or exponent != exponent:
        return math.nan
    if base == 0 or math.isinf(base) or math.isinf(exponent):
        return _at_the_edge(base, exponent)
    if abs(exponent) == 0.5:
        return _root(base, exponent)
    return _finite(base, exponent)


def _at_the_edge(base: float, exponent: float) -> float:
    """What the C library gives without rounding: zeros and infinities."""
    try:
        return math.pow(base, exponent)
    except ValueError:
        odd = (
            abs(exponent) < _HUGE
            and exponent == math.trunc(exponent)
            and math.trunc(exponent) % 2 == 1
        )
        return math.copysign(math.inf, base) if odd else math.inf


def _root(base: float, exponent: float) -> float:
    if base < 0:
        return math.nan
    root = math.sqrt(base)
    return root if exponent > 0 else 1 / root


def _finite(base: float, exponent: float) -> float:
    fraction, whole = math.modf(abs(exponent))
    if fraction and base < 0:
        return math.nan
    if whole >= _HUGE:
        if base == -1:
            return 1.0
        return 0.0 if (abs(base) < 1) == (exponent > 0) else math.inf
    mantissa = 1.0
    if fraction:
        if fraction > 0.5:
            fraction -= 1
            whole += 1
        mantissa = exponential(fraction * logarithm(base))
    mantissa, scale = _by_squaring(base, int(whole), mantissa)
    if exponent < 0:
        mantissa, scale = 1 / mantissa, -scale
    return _scaled(mantissa, scale)


def _by_squaring(base: float, whole: int, mantissa: float) -> tuple[float, int]:
    """`mantissa * base ** whole` as a float and a power of two, squaring once for each bit."""
    square, square_scale = math.frexp(base)
    scale = 0
    while whole:
        if not -_FAR_EXPONENT <= square_scale <= _FAR_EXPONENT:
            return mantissa, scale + square_scale
        if whole & 1:
            mantissa *= square
            scale += square_scale
        square *= square
        square_scale *= 2
        if square < 0.5:
            square += square
            square_scale -= 1
        whole >>= 1
    return mantissa, scale


def _scaled(mantissa: float, scale: int) -> float:
    try:
        return math.ldexp(mantissa, scale)
    except OverflowError:
        return math.copysign(math.inf, mantissa)
