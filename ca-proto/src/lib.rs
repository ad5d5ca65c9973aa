//! Wire types of the Istio certificate service, of Envoy secret discovery and of the SPIFFE Workload API; and of spans for
//! OpenTelemetry.
//!
//! | module | what it speaks |
//! |---|---|
//! | [`istio::v1::auth`] | `IstioCertificateService`: a CSR goes in, a certificate chain comes out; and its predecessor |
//! | [`envoy::service::secret::v3`] | `SecretDiscoveryService`: how Envoy gets keys, certificates and roots |
//! | [`envoy::service::discovery::v3`] | the requests and responses of every xDS stream |
//! | [`envoy::extensions::transport_sockets::tls::v3`] | `Secret` and what it holds |
//! | [`envoy::config::core::v3`] | `Node`, `DataSource` and friends |
//! | [`spiffe::workload`] | `SpiffeWorkloadAPI`: how other programs get theirs |
//! | [`opentelemetry::proto::collector::trace::v1`] | what a collector of spans is sent (OTLP) |
//!
//! Names and tags are those of the public contracts. Messages are cut down to the fields that a
//! certificate authority and its agents need: a decoder skips the rest, so the wire stays
//! compatible, but **a message that is decoded and encoded again loses the fields that are missing
//! here**. The `.proto` files are in the package under `proto/`.
//!
//! Clients and servers are generated without a transport: they work over any `tower` service, and
//! this crate pulls in no HTTP stack. `Debug` of messages that carry keys is redacted.
//!
//! ```
//! use ca_proto::istio::v1::auth::IstioCertificateRequest;
//!
//! let request = IstioCertificateRequest {
//!     csr: "-----BEGIN CERTIFICATE REQUEST-----…".to_owned(),
//!     validity_duration: 24 * 60 * 60,
//!     metadata: None,
//! };
//! assert_eq!(request.validity_duration, 86_400);
//! ```

#[expect(
    missing_docs,
    unused_qualifications,
    clippy::clone_on_ref_ptr,
    clippy::missing_errors_doc,
    reason = "the generator has its own style, and documents messages but not their modules"
)]
#[rustfmt::skip]
mod generated;
mod redacted;

pub use generated::{envoy, google, istio, opentelemetry};

/// The SPIFFE Workload API. On the wire it has no package.
pub mod spiffe {
    /// `SpiffeWorkloadAPI` and its messages.
    pub mod workload {
        pub use crate::generated::{
            JwtBundlesRequest, JwtBundlesResponse, Jwtsvid, JwtsvidRequest, JwtsvidResponse,
            ValidateJwtsvidRequest, ValidateJwtsvidResponse, X509BundlesRequest,
            X509BundlesResponse, X509svid, X509svidRequest, X509svidResponse,
            spiffe_workload_api_client, spiffe_workload_api_server,
        };
    }
}

/// What a gRPC server tells reflection clients about [`istio::v1::auth`]: an encoded `google.protobuf.FileDescriptorSet`,
/// with all imports.
pub const ISTIO_FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("generated/istio.v1.auth.binpb");

/// The type URL under which a [`Secret`](envoy::extensions::transport_sockets::tls::v3::Secret) is
/// asked for and packed.
pub const SECRET_TYPE_URL: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
