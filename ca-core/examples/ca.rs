//! A certificate authority in thirty lines: `cargo run --example ca < request.pem` signs a request for the name given in
//! `NAME` below. Try it with `openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -subj /`.

use std::io::Read as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ca_core::{
    BundleStore, CertificateChain, Csr, KeyCertBundle, KeyKind, LocalAuthority, PrivateKey,
    RootParams, SigningRequest, SpiffeId, TrustBundle,
};

const NAME: &str = "spiffe://cluster.local/ns/shop/sa/cart";
const DAY: Duration = Duration::from_secs(24 * 3600);

#[expect(clippy::disallowed_methods, reason = "an edge: a program has a clock")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let now = SystemTime::now().into();
    // A key, a root, and the bundle that has been verified to fit together. A real CA keeps them: see `DirectoryStore`.
    let key = PrivateKey::generate(KeyKind::EcdsaP256)?;
    let root = RootParams::new("cluster.local", 3650 * DAY).self_sign(&key, now)?;
    let roots = TrustBundle::new([root.clone()])?;
    let bundle = KeyCertBundle::new(Arc::new(key), CertificateChain::new(root, []), roots, now)?;
    let authority = LocalAuthority::new(BundleStore::new(bundle));

    // The request proves that its sender has the private key. Whose name it gets is for us to decide.
    let mut pem = Vec::new();
    std::io::stdin().read_to_end(&mut pem)?;
    let name: SpiffeId = NAME.parse()?;
    let request = SigningRequest::new(Csr::from_pem(&pem)?, vec![name.into()], DAY);
    let issued = authority.issue(&request, now)?;
    print!("{}{}", issued.chain().to_pem(), issued.roots().to_pem());
    Ok(())
}
