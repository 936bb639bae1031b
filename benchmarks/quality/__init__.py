"""The parts of `benchmarks/bench_quality.py`: a stream, the protocol, the search for settings, and the page."""
