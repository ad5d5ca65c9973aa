//! The cryptographic libraries that are measured.

use ca_core::crypto::{AWS_LC_RS, Backend, RING};

/// In the order of the tables.
pub const ALL_LIBRARIES: [Library; 2] = [Library::Ring, Library::AwsLcRs];

/// One of the libraries that ca-core can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Library {
    /// The default.
    Ring,
    /// What `ca-server` uses.
    AwsLcRs,
}

impl Library {
    /// As ca-core knows it.
    pub fn backend(self) -> &'static Backend {
        match self {
            Self::Ring => &RING,
            Self::AwsLcRs => &AWS_LC_RS,
        }
    }

    /// The name of the crate.
    pub fn name(self) -> &'static str {
        self.backend().name()
    }

    /// The library of that name.
    pub fn named(name: &str) -> Option<Self> {
        ALL_LIBRARIES
            .into_iter()
            .find(|library| library.name() == name)
    }
}
