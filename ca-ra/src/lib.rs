//! Registration authority: certificates signed by somebody else.
//!
//! A registration authority (RA) decides who gets a certificate and for which name, and has another
//! signer make it: the certificate API of Kubernetes, cert-manager, Vault, another CA. Those signers
//! take the names from the CSR, so two things must hold:
//!
//! ```text
//! SigningRequest --ScreenedRequest::screen--> ScreenedRequest --(ask the signer)--> chain, roots
//!                                                   |                                  |
//!                                                   +-----------.accept----------------+--> IssuedChain
//! ```
//!
//! - What is sent asks for exactly what was granted. Backends take a [`ScreenedRequest`], and there is no
//!   other way to make one.
//! - What comes back is what was asked for. Only [`ScreenedRequest::accept`] turns it into an answer.
//!
//! A backend implements [`ca_core::CertificateAuthority`], so a server does not know whether it is a CA or
//! an RA. It never asks who is calling: the names in a [`SigningRequest`](ca_core::SigningRequest) have been
//! granted before.
//!
//! | feature | adds |
//! |---|---|
//! | `istio` | `IstioUpstream`, which asks another Istio-compatible CA, for workloads and for a CA below it |
//! | `kubernetes` | `KubernetesCsrAuthority` and `CertManagerAuthority`, which ask signers behind a Kubernetes API server |
//!
//! ```
//! use std::time::Duration;
//! use ca_core::{CertificateAuthority, Csr, SignError, SigningRequest};
//! use ca_ra::ScreenedRequest;
//! # use ca_core::testing::{TestCa, now};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (ca, now) = (TestCa::new("cluster.local"), now());
//! # let (key, name) = (ca_core::PrivateKey::generate(Default::default())?, ca.id("shop", "cart"));
//! # let csr_pem = ca_core::create_csr_pem(&key, &[name.clone().into()])?;
//! # let foreign_signer = |csr: &Csr| ca.issue(csr, &[name.clone().into()], Duration::from_secs(3600), now);
//! let csr = Csr::from_pem(csr_pem.as_bytes())?;
//! let request = SigningRequest::new(csr, vec![name.clone().into()], Duration::from_secs(3600));
//!
//! let screened = ScreenedRequest::screen(request).map_err(SignError::from)?;
//! let answer = foreign_signer(screened.csr());
//! let issued = screened
//!     .accept(answer.chain(), answer.roots(), now)
//!     .map_err(SignError::from)?;
//! assert_eq!(issued.chain().leaf().spiffe_ids().next(), Some(&name));
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "istio")]
mod istio;
#[cfg(feature = "kubernetes")]
mod kubernetes;
#[cfg(feature = "kubernetes")]
mod own_request;
mod returned;
mod screen;

#[cfg(test)]
mod odd_certificates;

#[cfg(feature = "istio")]
pub use istio::{
    IstioUpstream, TokenError, UpstreamAddress, UpstreamAddressError, UpstreamConfig,
    UpstreamCredential, UpstreamError,
};
#[cfg(feature = "kubernetes")]
pub use kubernetes::{
    Afterwards, Approval, CertManagerAuthority, CertManagerConfig, CertificateRequest,
    CertificateRequestSpec, CertificateRequestStatus, Condition, ConfigMapRef, IssuerRef, Issuers,
    KubernetesCsrAuthority, KubernetesCsrConfig, KubernetesSignerError, NotAnIssuer, Refusal,
    SignerNames, SignerRoots, Upkeep,
};
pub use returned::{ReturnedError, accept_authority, accept_server};
pub use screen::{ScreenError, ScreenedRequest};
