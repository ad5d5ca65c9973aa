//! The keys, names and CA of all targets, the same at every start.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use ca_core::{
    BundleStore, CertificateChain, KeyCertBundle, LocalAuthority, PrivateKey, RootParams,
    SubjectName, TrustBundle,
};
use time::OffsetDateTime;
use time::macros::datetime;

use crate::der::{OCTET_STRING, SEQUENCE, wrap};

/// When everything happens.
pub const NOW: OffsetDateTime = datetime!(2027-01-15 08:00 UTC);

/// How long certificates live.
pub const HOUR: Duration = Duration::from_secs(3600);

/// The workload that asks.
pub const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";

/// [`CART`] as a name of a certificate.
pub fn cart() -> SubjectName {
    CART.parse().expect("a name")
}

/// An Ed25519 key: quick, and its signatures do not change from run to run.
pub fn key(number: u8) -> PrivateKey {
    let text = pem::encode(&pem::Pem::new("PRIVATE KEY", key_der(number)));
    PrivateKey::from_pem(text.as_bytes()).expect("a key")
}

/// The same key as PKCS#8.
pub fn key_der(number: u8) -> Vec<u8> {
    let seed = wrap(OCTET_STRING, &[&[number; 32]]);
    let algorithm = wrap(SEQUENCE, &[&[0x06, 3, 0x2b, 0x65, 0x70]]);
    let version = [0x02, 1, 0];
    wrap(
        SEQUENCE,
        &[&version, &algorithm, &wrap(OCTET_STRING, &[&seed])],
    )
}

/// The key of the workload that asks.
pub static WORKLOAD_KEY: LazyLock<PrivateKey> = LazyLock::new(|| key(1));

/// A CA with a root of its own.
pub static AUTHORITY: LazyLock<LocalAuthority> = LazyLock::new(|| {
    let key = key(2);
    let root = RootParams::new("cluster.local", 24 * HOUR).self_sign(&key, NOW);
    let chain = CertificateChain::new(root.expect("a root"), []);
    let roots = TrustBundle::new([chain.leaf().clone()]).expect("a CA certificate");
    let bundle = KeyCertBundle::new(Arc::new(key), chain, roots, NOW).expect("a bundle");
    LocalAuthority::new(BundleStore::new(bundle))
});
