//! Where the server's own signing comes from: a root of its own, or a key that an operator plugs in.

pub(crate) mod local;
pub(crate) mod plugged;
pub(crate) mod rotator;
pub(crate) mod self_signed;
pub(crate) mod subordinate;
