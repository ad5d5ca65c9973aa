//! Secrets as Envoy wants them: names, and messages.

use std::{fmt, str::FromStr};

use ca_proto::{
    SECRET_TYPE_URL,
    envoy::{
        config::core::v3::{DataSource, data_source::Specifier},
        extensions::transport_sockets::tls::v3::{
            CertificateValidationContext, Secret, TlsCertificate, secret::Type,
        },
    },
};
use prost::Message as _;
use prost_types::Any;

use crate::secrets::{Part, WorkloadSecret};

/// A name that can be subscribed to. Ordered as it should be pushed: roots first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SecretName(Part);

impl SecretName {
    /// Key and certificate of the workload.
    pub(crate) const DEFAULT: Self = Self(Part::KeyPair);
    /// The roots.
    pub(crate) const ROOTCA: Self = Self(Part::Roots);

    /// What the name stands for.
    pub(crate) fn part(self) -> Part {
        self.0
    }

    /// As it is written in requests.
    pub(crate) fn as_str(self) -> &'static str {
        match self.0 {
            Part::KeyPair => "default",
            Part::Roots => "ROOTCA",
        }
    }

    /// The part of `secret` that the name stands for, ready to be sent.
    pub(crate) fn pack(self, secret: &WorkloadSecret) -> Any {
        let contents = match self.0 {
            Part::KeyPair => Type::TlsCertificate(TlsCertificate {
                certificate_chain: Some(inline(&secret.chain_pem())),
                private_key: Some(inline(secret.key_pem())),
                ..TlsCertificate::default()
            }),
            Part::Roots => Type::ValidationContext(CertificateValidationContext {
                // Whom to accept is added by the control plane; whom to trust is all we know.
                trusted_ca: Some(inline(secret.roots_pem())),
                ..CertificateValidationContext::default()
            }),
        };
        let message = Secret {
            name: self.as_str().to_owned(),
            r#type: Some(contents),
        };
        Any {
            type_url: SECRET_TYPE_URL.to_owned(),
            value: message.encode_to_vec(),
        }
    }
}

impl FromStr for SecretName {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        [Self::DEFAULT, Self::ROOTCA]
            .into_iter()
            .find(|known| known.as_str() == name)
            .ok_or_else(|| UnknownName(name.to_owned()))
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A name that stands for nothing here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no secret {0:?}; known are \"default\" and \"ROOTCA\"")]
pub(crate) struct UnknownName(pub(crate) String);

fn inline(pem: &str) -> DataSource {
    DataSource {
        specifier: Some(Specifier::InlineBytes(pem.as_bytes().to_vec())),
        watched_directory: None,
    }
}
