//! A small certificate agent.

fn main() {}
