"""Functions over arrays that numba compiles: what is done for each pair, slot or candidate."""
