//! Where the server's own signing comes from.

pub(crate) mod local;
pub(crate) mod self_signed;
