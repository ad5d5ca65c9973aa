//! Where certificates come from: a root of our own, a key that an operator plugs in, a key of our own that another CA
//! certifies; or a signer that is asked for each of them.

pub(crate) mod in_cluster;
pub(crate) mod local;
pub(crate) mod plugged;
pub(crate) mod plugged_secret;
pub(crate) mod registration;
pub(crate) mod rotator;
pub(crate) mod self_signed;
pub(crate) mod shared;
pub(crate) mod signing;
pub(crate) mod subordinate;
pub(crate) mod upstream;
