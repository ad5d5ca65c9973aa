//! Checks, demo and interoperability runs of this workspace.

fn main() {}
