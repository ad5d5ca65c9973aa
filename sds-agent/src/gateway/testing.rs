//! Secrets of a cluster for tests.

use ca_core::testing::TestCa;
use k8s_openapi::{ByteString, api::core::v1};

use crate::secrets::{Catalogue, SecretName};

/// What a client would ask for.
pub(super) fn name(text: &str) -> SecretName {
    Catalogue { credentials: true }.read(text).unwrap()
}

/// A Secret as the API server has it.
pub(super) fn secret(name: &str, data: &[(&str, &str)]) -> v1::Secret {
    let data = data
        .iter()
        .map(|(key, part)| ((*key).to_owned(), ByteString(part.as_bytes().to_vec())));
    let mut secret = v1::Secret {
        data: Some(data.collect()),
        ..v1::Secret::default()
    };
    secret.metadata.name = Some(name.to_owned());
    secret.metadata.resource_version = Some("1".to_owned());
    secret
}

/// A new pair in the way of TLS Secrets. Also gives its certificate.
pub(super) fn tls_secret(name: &str, ca: &TestCa) -> (v1::Secret, String) {
    let (key, chain) = ca.workload("edge", "gateway");
    let chain = chain.to_pem();
    let data = [("tls.crt", &*chain), ("tls.key", &key.to_pkcs8_pem())];
    (secret(name, &data), chain)
}
