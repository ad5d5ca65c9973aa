//! What an operator types instead of serving: one file for each verb.

pub(crate) mod policy;
pub(crate) mod rotate;
pub(crate) mod token;
