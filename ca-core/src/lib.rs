//! The certificate authority of a service mesh, as a library: keys, signing requests, bundles, lifetimes and signing.
//!
//! It is *not* a server: it knows no network, no Kubernetes, no clock and (with default features) no disk. Time is an
//! argument. A request passes through it in one direction:
//!
//! ```text
//! PEM  ->  Csr  ─┐
//! names decided ─┼─> SigningRequest ──> CertificateAuthority ──> IssuedChain
//! TtlPolicy     ─┘                      (LocalAuthority: key, chain and roots from one KeyCertBundle)
//! ```
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `store` | [`DirectoryStore`], the crash-safe directory that holds a CA's key |
//! | `aws-lc-rs` | [`crypto::AWS_LC_RS`], a second cryptographic backend beside [`crypto::RING`] |
//! | `files` | [`files`], which follows files that change under us |
//! | `testing` | [`testing`], a throw-away CA |
//!
//! Features add API and change no behaviour.

mod asn1;
mod authority;
mod backoff;
mod bundle;
mod certificate;
pub mod crypto;
mod csr;
mod duration;
#[cfg(feature = "files")]
pub mod files;
mod identity;
mod key;
mod local;
mod public_key;
mod random;
mod renewal;
mod revocation;
mod rotation;
mod self_signed;
mod state;
mod store;
mod template;
#[cfg(feature = "testing")]
pub mod testing;
mod trust;
mod ttl;

pub use authority::{
    BoxFuture, CertificateAuthority, ElementsError, IssuedChain, SignError, SigningRequest,
};
pub use backoff::Backoff;
pub use bundle::{
    BundleError, BundlePem, BundlePemError, BundleStore, CaLayout, IncompleteCa, KeyCertBundle,
    Part, Subscription,
};
pub use certificate::{Certificate, CertificateChain, CertificateError, ChainError};
pub use csr::{
    CreateCsrError, Csr, CsrError, RequestedExtension, SubjectAttribute, create_ca_csr_pem,
    create_csr_pem,
};
pub use duration::{DurationError, format_duration, parse_duration};
pub use identity::{DnsName, IdentityError, SpiffeId, SubjectName, TrustDomain, Workload};
pub use key::{KeyError, KeyKind, PrivateKey, SigningKey};
pub use local::{CaRequest, LocalAuthority};
pub use public_key::{PublicKey, PublicKeyError, PublicKeyKind, VerifyError};
pub use random::random_unit;
pub use renewal::{RenewalError, RenewalPolicy};
pub use revocation::{RevocationError, RevocationList, RevocationLists};
pub use rotation::{
    FirstCheck, Method, Rotation, RotationAction, RotationError, RotationPolicy, Successor,
};
pub use self_signed::{RootError, RootParams};
pub use state::{AuthorityState, StateFileError};
#[cfg(feature = "store")]
pub use store::DirectoryStore;
pub use store::{AuthorityStore, Revision, StoreError, Stored};
pub use trust::{TrustBroken, TrustBundle, TrustError};
pub use ttl::{OverMax, TtlError, TtlPolicy};

/// The example of the README is compiled and run with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExample;
