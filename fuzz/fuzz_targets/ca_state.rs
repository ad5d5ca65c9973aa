#![no_main]

use ca_core::crypto::RING;
use ca_core::{AuthorityState, CaLayout, KeyCertBundle, Rotation};
use libfuzzer_sys::fuzz_target;
use mesh_ca_fuzz::fixed::NOW;
use mesh_ca_fuzz::folder::{self, Folder};
use zeroize::Zeroizing;

// A state is the same after it was stored, shows no key, and can serve as a plugged-in CA.
fuzz_target!(|text: &[u8]| {
    let folder = Folder::read(text);
    let state = match AuthorityState::from_files(|name| folder.get(name), &RING) {
        Ok(state) => state,
        Err(error) => {
            assert!(!error.cause.is_empty());
            assert_eq!(error.cause == "missing", !folder.has(error.name));
            return;
        }
    };
    let is_steady = matches!(state.rotation(), Rotation::Steady);
    assert_eq!(is_steady, !folder.has("rotation"));
    let files = state.to_files();
    let again = AuthorityState::from_files(|name| stored(&files, name), &RING);
    assert_eq!(again.expect("what we write reads").to_files(), files);
    let keys = files.iter().filter(|(name, _)| name.contains("key"));
    let keys: Vec<_> = keys.map(|(_, key)| key.clone()).collect();
    folder::check_hidden(&format!("{state:?}"), keys);

    let Ok(bundle) = state.bundle(NOW) else {
        return;
    };
    let parts = CaLayout::collect(|name| stored(&files, name)).expect("all files are there");
    let (layout, parts) = parts.expect("all files are there");
    assert_eq!(layout, CaLayout::Istio);
    let plugged = KeyCertBundle::from_pem(&parts, &RING, NOW).expect("it can be plugged in");
    assert_eq!(plugged.signing_certificate(), bundle.signing_certificate());
    assert_eq!(plugged.roots(), bundle.roots());
    folder::check(plugged);
});

fn stored(files: &[(&'static str, Zeroizing<String>)], name: &str) -> Option<Zeroizing<Vec<u8>>> {
    let (_, text) = files.iter().find(|(stored, _)| *stored == name)?;
    Some(Zeroizing::new(text.as_bytes().to_vec()))
}
