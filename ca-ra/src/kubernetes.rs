//! Signers behind a Kubernetes API server.
//!
//! ```text
//! ScreenedRequest ── object with the CSR ──> API server <── approver, signer (somebody else)
//!       ^                                        │
//!       │  key, name, dates, chain               │ one watch for all requests of this process
//!       └────────── answer <── outcome <─────────┘        then the object is deleted
//! ```
//!
//! Two kinds: the certificate API of Kubernetes itself ([`KubernetesCsrAuthority`]) and cert-manager
//! ([`CertManagerAuthority`]). What they share is in `requests`: create, perhaps approve, wait, delete.

mod answer;
mod cert_manager;
mod certificate_request;
mod cleanup;
mod error;
mod issuer;
mod kubernetes_csr;
mod outcome;
mod requests;
mod signer_roots;
mod upkeep;
mod watching;

pub use cert_manager::{CertManagerAuthority, CertManagerConfig};
pub use certificate_request::{
    CertificateRequest, CertificateRequestSpec, CertificateRequestStatus, Condition,
};
pub use error::KubernetesSignerError;
pub use issuer::{ConfigMapRef, IssuerRef, Issuers, NotAnIssuer};
pub use kubernetes_csr::{KubernetesCsrAuthority, KubernetesCsrConfig, SignerNames};
pub use outcome::Refusal;
pub use requests::{Afterwards, Approval};
pub use signer_roots::SignerRoots;
pub use upkeep::Upkeep;
