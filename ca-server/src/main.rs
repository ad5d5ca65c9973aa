//! A certificate authority for service meshes.

fn main() {}
