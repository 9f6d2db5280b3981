"""What a test says about a wrong answer: the case, what was expected, what came, the likely mistake, where to read."""

from math import isclose


def expect(got, want, case, see, mistakes=None):
    """Accept `got` where it is `want`, and say otherwise what is wrong with it.

    Args:
        got: what the student's code gave.
        want: what is right; numbers may differ by rounding only.
        case: the example, in words.
        see: where to read on.
        mistakes: what comes out of each likely mistake, by its name.

    Raises:
        AssertionError: they differ.
    """
    if same(got, want):
        return
    likely = [name for name, value in (mistakes or {}).items() if same(got, value)]
    near = " It is near: look at constants, rounding and step sizes first." if same(got, want, 0.02) else ""
    cause = f" This is what comes out when {likely[0]}." if likely else near
    raise AssertionError(f"{case}: expected {shown(want)}, got {shown(got)}.{cause} Read {see}.")


def same(one, other, tolerance=1e-6):
    """Whether two values are equal, whole numbers exactly, others up to a relative tolerance, a tuple like a list."""
    if isinstance(one, bool) or isinstance(other, bool) or one is None or other is None:
        return one is other
    if isinstance(one, int) and isinstance(other, int):
        return one == other
    if isinstance(one, int | float) and isinstance(other, int | float):
        return isclose(one, other, rel_tol=tolerance, abs_tol=1e-9)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(same(*pair, tolerance) for pair in zip(one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key], tolerance) for key in one)
    return type(one) is type(other) and one == other


def shown(value):
    """A value as a reader wants it: six digits, and not more than a line or two."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(shown, value)) + "]"
    text = repr(value)
    return text if len(text) <= 200 else text[:200] + " ..."
