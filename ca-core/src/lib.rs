//! Keys, CSRs, bundles, TTL policy and signing: the certificate authority of a service mesh as a library.

mod identity;

pub use identity::{DnsName, IdentityError, SpiffeId, SubjectName, TrustDomain, Workload};
