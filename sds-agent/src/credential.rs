//! How the agent proves to a CA which workload it speaks for.

mod token_file;

pub(crate) use token_file::{TokenError, TokenFile};
