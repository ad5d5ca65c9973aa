//! Benchmarks: each file answers one question.
