"""Powers to the last bit as Go has them (C's differ in it now and then)."""

from __future__ import annotations

import math
from fractions import Fraction

_HUGE = 2.0**63
_FAR_EXPONENT = 1 << 12


def power(base: float, exponent: float) -> float:
    """Return `base` to the `exponent`, by the IEEE's rules where there is no finite answer."""
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
    """Return what the C library gives without rounding: zeros and infinities."""
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


_LOG2_E = 1.4426950408889634
_LN2_UPPER, _LN2_LOWER = (
    0.69314718055966295651160180568695068359375,
    0.28235290563031577122588448175013436e-12,
)
_OVERFLOW = 7.09782712893384e02
_TAYLOR = tuple(1 / math.factorial(order) for order in range(7, 0, -1))
_HALVINGS = 4

_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_EVEN = (1.531383769920937332e-01, 2.222219843214978396e-01, 3.999999999940941908e-01)
_ODD = (
    1.479819860511658591e-01,
    1.818357216161805012e-01,
    2.857142874366239149e-01,
    6.666666666666735130e-01,
)


def _fused(factor: float, other: float, addend: float) -> float:
    """`factor * other + addend`, rounded once."""
    return float(Fraction(factor) * Fraction(other) + Fraction(addend))


def exponential(number: float) -> float:
    """e to the power of a finite number; infinite where no float holds it."""
    if number > _OVERFLOW:
        return math.inf
    scale = round(_LOG2_E * number)
    rest = _fused(-_LN2_UPPER, scale, number)
    rest = _fused(-_LN2_LOWER, scale, rest) * 2.0**-_HALVINGS
    series = 1 / math.factorial(8)
    for coefficient in _TAYLOR:
        series = _fused(rest, series, coefficient)
    less_one = rest * series
    for _ in range(_HALVINGS - 1):
        less_one *= less_one + 2
    result = _fused(less_one + 2, less_one, 1.0)
    return math.ldexp(result, scale)


def logarithm(number: float) -> float:
    """Return the natural logarithm of a finite number above zero."""
    mantissa, scale = math.frexp(number)
    if mantissa < math.sqrt(2) / 2:
        mantissa *= 2
        scale -= 1
    fraction = mantissa - 1
    ratio = fraction / (2 + fraction)
    square = ratio * ratio
    fourth = square * square
    remainder = square * _polynomial(_ODD, fourth) + fourth * _polynomial(_EVEN, fourth)
    half_square = 0.5 * fraction * fraction
    return scale * _LN2_HIGH - (
        (half_square - (ratio * (half_square + remainder) + scale * _LN2_LOW)) - fraction
    )


def _polynomial(coefficients: tuple[float, ...], variable: float) -> float:
    total = 0.0
    for coefficient in coefficients:
        total = coefficient + variable * total
    return total
