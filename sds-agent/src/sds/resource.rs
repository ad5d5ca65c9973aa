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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::testing::Lineage;

    /// A provider would be an extension that only some builds of Envoy have, for processors that only some machines have.
    #[test]
    fn a_key_is_given_as_it_is_and_no_provider_is_named() {
        let pair = Lineage::new().workload().secret.key_pair();
        let packed = pack(&SecretName::KeyPair, &pair);
        let message = SecretMessage::decode(packed.value.as_slice()).unwrap();
        let Some(Type::TlsCertificate(sent)) = message.r#type else {
            panic!("no key pair");
        };
        assert!(sent.private_key_provider.is_none());
        let Contents::KeyPair { key, .. } = pair.contents() else {
            panic!("no key pair");
        };
        assert_eq!(sent.private_key, Some(inline(key.as_bytes())));
    }
}
