//! Secrets as Envoy wants them.

use ca_proto::{
    SECRET_TYPE_URL,
    envoy::{
        config::core::v3::{DataSource, data_source::Specifier},
        extensions::transport_sockets::tls::v3::{
            CertificateValidationContext, Secret as SecretMessage, TlsCertificate, secret::Type,
        },
    },
};
use prost::Message as _;
use prost_types::Any;

use crate::secrets::{Contents, Secret, SecretName};

/// A secret, ready to be sent.
pub(super) fn pack(name: &SecretName, secret: &Secret) -> Any {
    let contents = match secret.contents() {
        Contents::KeyPair {
            chain, key, staple, ..
        } => Type::TlsCertificate(TlsCertificate {
            certificate_chain: Some(inline(chain.as_bytes())),
            private_key: Some(inline(key.as_bytes())),
            ocsp_staple: staple.as_deref().map(inline),
            ..TlsCertificate::default()
        }),
        Contents::Roots { roots, revocation } => {
            Type::ValidationContext(CertificateValidationContext {
                // Whom to accept is added by the control plane; whom to trust is all we know.
                trusted_ca: Some(inline(roots.as_bytes())),
                crl: revocation.as_deref().map(str::as_bytes).map(inline),
                ..CertificateValidationContext::default()
            })
        }
    };
    let message = SecretMessage {
        name: name.to_string(),
        r#type: Some(contents),
    };
    Any {
        type_url: SECRET_TYPE_URL.to_owned(),
        value: message.encode_to_vec(),
    }
}

fn inline(bytes: &[u8]) -> DataSource {
    DataSource {
        specifier: Some(Specifier::InlineBytes(bytes.to_vec())),
        watched_directory: None,
    }
}
