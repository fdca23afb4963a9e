"""The benchmarks are :mod:`mbframework.bench`; here are their tests, and what only contributors measure: ``mbtui``."""
