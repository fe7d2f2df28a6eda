"""Fits the polynomials of native/math.inl: minimax by Lawson's reweighting, then the error after rounding to float32.

Run it by hand (numpy only); it prints the coefficients, constant term first, and the worst error of each.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Function = Callable[[Doubles], Doubles]


def minimax(target: Function, weight: Function, low: float, high: float, degree: int) -> Doubles:
    """Coefficients, constant term first, of the polynomial that minimises max |weight (target - polynomial)|."""
    nodes = np.cos(np.pi * (np.arange(4000) + 0.5) / 4000)
    x = (low + high) / 2 + (high - low) / 2 * nodes
    chebyshev = np.polynomial.chebyshev.chebvander(nodes, degree)
    wanted, importance = target(x), weight(x)
    lawson = np.ones_like(x)
    for _ in range(200):
        scale = importance * np.sqrt(lawson)
        fitted, *_ = np.linalg.lstsq(chebyshev * scale[:, None], wanted * scale, rcond=None)
        error = np.abs(importance * (wanted - chebyshev @ fitted))
        lawson *= error
        lawson /= lawson.sum()
    series = np.polynomial.Chebyshev(fitted, domain=[low, high])
    return np.asarray(series.convert(kind=np.polynomial.Polynomial, domain=[-1, 1], window=[-1, 1]).coef)


def horner(coefficients: Doubles, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """The polynomial in float32, as the kernels evaluate it but for the fused multiply-add."""
    result = np.full_like(x, np.float32(coefficients[-1]))
    for coefficient in coefficients[-2::-1]:
        result = result * x + np.float32(coefficient)
    return result


def show(name: str, coefficients: Doubles, error: float) -> None:
    terms = ", ".join(f"{np.float32(c):.9g}f" for c in coefficients)
    sys.stdout.write(f"{name}\n  {terms}\n  worst error {error:.3g}\n")


def fit_exp() -> None:
    """e^r = 1 + r + r^2 p(r) for |r| <= ln(2) / 2, relative error."""
    half = math.log(2) / 2
    p = minimax(lambda r: (np.expm1(r) - r) / r**2, lambda r: r**2 * np.exp(-r), -half, half, 4)
    r = np.linspace(-half, half, 200_001, dtype=np.float32)
    value = 1 + (r + r * r * horner(p, r))
    show("exp", p, float(np.max(np.abs(value / np.exp(r.astype(np.float64)) - 1))))


def fit_normal_tail(degree: int, end: float) -> None:
    """ln Q(y) for 0 <= y <= end, where Q(y) = erfc(y / sqrt 2) / 2; what counts is the absolute error of y Q(y)."""
    tail = np.vectorize(lambda y: math.erfc(y / math.sqrt(2)) / 2)
    p = minimax(lambda y: np.log(tail(y)), lambda y: np.maximum(y, 0.5) * tail(y) + 1e-7, 0.0, end, degree)
    y = np.linspace(0, end, 200_001, dtype=np.float32)
    value = np.exp(horner(p, y))
    error = float(np.max(np.abs(value - tail(y.astype(np.float64)))))
    show(f"normal tail, degree {degree}", p, error)
    beyond = np.linspace(end, 60, 1000)
    falls = bool(np.all(np.diff(np.polynomial.polynomial.polyval(beyond, p)) < 0))
    sys.stdout.write(f"  error of y Q(y) {float(np.max(np.abs(y * (value - tail(y.astype(np.float64)))))):.3g}")
    sys.stdout.write(f", keeps falling beyond {end}: {falls}\n")


def fit_coarse_power() -> None:
    """2^r for |r| <= 1/2, relative error."""
    p = minimax(lambda r: np.exp2(r), lambda r: np.exp2(-r), -0.5, 0.5, 3)
    r = np.linspace(-0.5, 0.5, 200_001, dtype=np.float32)
    show("coarse power of two", p, float(np.max(np.abs(horner(p, r) / np.exp2(r.astype(np.float64)) - 1))))


def fit_coarse_tail(end: float) -> None:
    """log2 Q(y) for 0 <= y <= end; what counts is the absolute error of y Q(y), from 0.3 down the relative one."""
    tail = np.vectorize(lambda y: math.erfc(y / math.sqrt(2)) / 2)
    p = minimax(lambda y: np.log2(tail(y)), lambda y: np.maximum(y, 0.3) * tail(y) + 1e-6, 0.0, end, 4)
    y = np.linspace(0, end, 200_001, dtype=np.float32)
    error = y * (np.exp2(horner(p, y)) - tail(y.astype(np.float64)))
    show("coarse normal tail", p, float(np.max(np.abs(error))))


def fit_tanh() -> None:
    """tanh x = x + x^3 p(x^2) for |x| <= 0.625, relative error."""

    def remainder(z: Doubles) -> Doubles:
        root = np.sqrt(z)
        return np.asarray((np.tanh(root) / root - 1) / z)

    p = minimax(remainder, lambda z: z * np.sqrt(z) / np.tanh(np.sqrt(z)), 1e-6, 0.625**2, 4)
    x = np.linspace(1e-3, 0.625, 200_001, dtype=np.float32)
    value = x + x * x * x * horner(p, x * x)
    show("tanh", p, float(np.max(np.abs(value / np.tanh(x.astype(np.float64)) - 1))))


if __name__ == "__main__":
    fit_exp()
    fit_normal_tail(8, 5.5)
    fit_tanh()
    fit_coarse_power()
    fit_coarse_tail(5.0)
