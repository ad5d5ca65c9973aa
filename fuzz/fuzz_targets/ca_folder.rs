#![no_main]

use ca_core::crypto::{AWS_LC_RS, RING};
use ca_core::{BundlePem, BundlePemError, CaLayout, KeyCertBundle};
use libfuzzer_sys::fuzz_target;
use mesh_ca_fuzz::fixed::NOW;
use mesh_ca_fuzz::folder::{self, Folder};

// A plugged-in CA is complete or refused, with the same verdict by both libraries; and one that is accepted signs what leads
// to its roots.
fuzz_target!(|text: &[u8]| {
    let folder = Folder::read(text);
    let parts = match CaLayout::collect(|name| folder.get(name)) {
        Ok(Some((layout, parts))) => {
            assert_eq!(layout == CaLayout::TlsSecret, folder.has("tls.crt"));
            parts
        }
        Ok(None) => {
            let istio = folder.has_any(&["ca-cert.pem", "ca-key.pem", "cert-chain.pem"]);
            return assert!(!istio && !folder.has_any(&["root-cert.pem", "tls.crt"]));
        }
        Err(incomplete) => {
            assert!(!incomplete.missing.is_empty());
            assert!(!incomplete.missing.iter().any(|name| folder.has(name)));
            return;
        }
    };
    let by_ring = KeyCertBundle::from_pem(&parts, &RING, NOW);
    let by_aws_lc = KeyCertBundle::from_pem(&parts, &AWS_LC_RS, NOW);
    match (by_ring, by_aws_lc) {
        (Ok(by_ring), Ok(by_aws_lc)) => {
            assert_eq!(by_ring.chain(), by_aws_lc.chain());
            assert_eq!(by_ring.roots(), by_aws_lc.roots());
            assert_eq!(by_ring.not_after(), by_aws_lc.not_after());
            check(&parts, by_ring);
            check(&parts, by_aws_lc);
        }
        (Err(BundlePemError::Key(_)), by_aws_lc) => drop(by_aws_lc.map(|b| check(&parts, b))),
        (by_ring, Err(BundlePemError::Key(_))) => drop(by_ring.map(|b| check(&parts, b))),
        (by_ring, by_aws_lc) => assert_eq!(by_ring.err(), by_aws_lc.err()),
    }
});

fn check(parts: &BundlePem, bundle: KeyCertBundle) {
    let key = String::from_utf8_lossy(&parts.key).into_owned();
    folder::check_hidden(&format!("{parts:?} {bundle:?}"), [key.into()]);
    match parts.revocation_lists(&bundle, &RING) {
        Ok(Some(lists)) => {
            let sent = bundle
                .chain()
                .iter()
                .filter(|c| !bundle.roots().contains(c));
            lists.cover(sent, &AWS_LC_RS).expect("nobody is left out");
            folder::check(bundle.with_revocation_lists(Some(lists)));
        }
        Ok(None) | Err(_) => folder::check(bundle),
    }
}
