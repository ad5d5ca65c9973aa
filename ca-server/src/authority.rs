//! Where the server's own signing comes from: a root of its own, a key that an operator plugs in, or a key of its own that
//! another CA certifies.

pub(crate) mod in_cluster;
pub(crate) mod local;
pub(crate) mod plugged;
pub(crate) mod plugged_secret;
pub(crate) mod rotator;
pub(crate) mod self_signed;
pub(crate) mod shared;
pub(crate) mod subordinate;
pub(crate) mod upstream;
