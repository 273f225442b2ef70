"""Framings at random, for what must hold for all of them."""

from hypothesis import strategies as st

from sepfast.reference import Framing


def framings(hops):
    """Framings that the kernels take, of a size that the interpreter bears.

    Args:
        hops: the longest hop; above 256 there are some that leave samples out.
    """
    return st.builds(
        Framing,
        n_fft=st.sampled_from([256, 512]),
        hop=st.integers(1, hops),
        window=st.sampled_from(["hann", "hamming", "blackman-harris", "rectangular"]),
        window_length=st.integers(0, 256),
        symmetric=st.booleans(),
        front=st.integers(0, 300),
        rule=st.sampled_from(["ceil+2", "pad-end", "valid"]),
        scale=st.floats(0.01, 10),
    )
