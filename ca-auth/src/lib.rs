//! Who is calling a mesh CA, and for which names may they ask.
//!
//! ```text
//! Evidence --Authenticators--> Caller --Authorizer--> Grant
//! ```
//!
//! Whoever speaks the wire puts together the [`Evidence`]: plain data, no request of any protocol. Each
//! [`Authenticator`] judges one kind of it. The [`Authorizer`] turns the [`Caller`] into a [`Grant`], and
//! nothing else can make one: code that signs takes the names from a grant and so cannot forget to ask.
//!
//! This crate does not listen, does not verify TLS connections, reads no files and no clock. Only with the
//! feature `http` it opens connections, to fetch the keys of token issuers. It tells
//! callers nothing: its errors are for the log, and whoever answers decides how little to say.
//!
//! ```
//! use std::time::Duration;
//! use ca_auth::{
//!     Audiences, Authenticators, Authorizer, Evidence, JwtAuthenticator, LocalIssuer, ServiceAccount,
//!     Transport,
//! };
//! use time::OffsetDateTime;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let now = OffsetDateTime::UNIX_EPOCH;
//! let issuer = LocalIssuer::generate()?;
//! let hour = Duration::from_secs(3600);
//! let token = issuer.issue(&ServiceAccount::new("shop", "cart")?, "istio-ca", hour, now)?;
//!
//! let mesh = "cluster.local".parse()?;
//! let jwt = JwtAuthenticator::new(mesh, issuer.keys(), Audiences::default())
//!     .with_issuer(LocalIssuer::NAME);
//! let authenticators = Authenticators::new(vec![Box::new(jwt)]);
//!
//! let evidence = Evidence::new(Transport::Tls { client_chain: None })
//!     .with_authorization(&format!("Bearer {token}"));
//! let caller = authenticators.authenticate(&evidence, now).await?;
//! let grant = Authorizer::own_names().authorize(caller, None)?;
//! assert_eq!(grant.identities()[0].as_str(), "spiffe://cluster.local/ns/shop/sa/cart");
//!
//! // An hour later the token is over.
//! assert!(authenticators.authenticate(&evidence, now + hour).await.is_err());
//! # Ok(())
//! # }
//! ```

mod address_range;
mod authenticator;
mod authorizer;
mod caller;
mod client_certificate;
mod evidence;
mod forwarded_certificate;
#[cfg(feature = "http")]
mod https;
mod identity_pattern;
mod issuer_keys;
mod jwt;
#[cfg(feature = "http")]
mod key_place;
mod key_source;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
mod local_issuer;
mod policy;
#[cfg(any(feature = "http", feature = "kubernetes"))]
mod remote_keys;
mod subject_rule;

pub use address_range::{AddressRange, AddressRangeError, TrustedProxies};
pub use authenticator::{
    AnotherIssuer, Authenticator, AuthenticatorStatus, Authenticators, AuthnError, Plaintext,
    Reason, Refusal,
};
pub use authorizer::{AuthorityGrant, Authorizer, AuthzError, Grant, KeyRefused};
pub use caller::{Caller, Identities, Pod, ServiceAccount, Source, SubjectError};
pub use client_certificate::ClientCertificateAuthenticator;
pub use evidence::{BearerToken, Evidence, Transport};
pub use forwarded_certificate::{
    ForwardedCertificate, ForwardedCertificateAuthenticator, ForwardedError,
};
#[cfg(feature = "http")]
pub use https::{DocumentUrl, FetchError, HttpsClient, HttpsClientError, UrlError};
pub use identity_pattern::{IdentityPattern, PatternError};
pub use issuer_keys::{IssuerKeys, IssuerKeysError};
pub use jwt::{Audiences, JwtAuthenticator, TokenError};
#[cfg(feature = "http")]
pub use key_place::{KeyPlace, KeyPlaceError};
pub use key_source::{KeySource, KeyStatus, KeysUnavailable};
pub use local_issuer::{LocalIssuer, LocalIssuerError};
pub use policy::{Policy, PolicyError, Problem, RuleName};
#[cfg(any(feature = "http", feature = "kubernetes"))]
pub use remote_keys::{KeySchedule, RemoteKeys};
pub use subject_rule::{
    ClaimError, ClaimName, ClaimRule, IdentityTemplate, SubjectRule, TemplateError,
};
