#![no_main]

use ca_auth::IdentityPattern;
use ca_core::{SpiffeId, TrustDomain};
use libfuzzer_sys::fuzz_target;
use mesh_ca_fuzz::glob;

// A pattern and an ID, one in each line: a plainer reader says the same of the two; and a pattern means the same after it
// was printed, also in another mesh.
fuzz_target!(|text: &str| {
    let (text, id) = text.split_once('\n').unwrap_or((text, ""));
    let mesh: TrustDomain = "cluster.local".parse().expect("a mesh");
    let elsewhere: TrustDomain = "elsewhere".parse().expect("a mesh");
    let id = id.parse::<SpiffeId>().ok();
    if let (Ok(pattern), Some(id)) = (IdentityPattern::namespace(text, &mesh), &id) {
        let is_in = id.is_in(&mesh) && id.as_workload().is_some_and(|w| w.namespace == text);
        assert_eq!(pattern.matches(id), is_in);
    }
    let Ok(pattern) = IdentityPattern::parse(text, &mesh) else {
        // Without a star, a name is a pattern.
        let is_workload = |id: SpiffeId| !id.path().is_empty();
        assert!(!text.parse().is_ok_and(is_workload));
        return;
    };
    let printed = pattern.to_string();
    assert_eq!(
        IdentityPattern::parse(&printed, &elsewhere),
        Ok(pattern.clone())
    );
    let whole = glob::whole(text, mesh.as_str());
    assert_eq!(printed, whole);
    let bare = format!("spiffe://{mesh}").parse().expect("a trust domain");
    assert!(!pattern.matches(&bare));
    if let Ok(itself) = whole.parse() {
        assert!(pattern.matches(&itself), "the ID that it is written as");
    }
    if let Some(id) = id {
        assert_eq!(pattern.matches(&id), glob::matches(&whole, id.as_str()));
        let names_mesh = text.starts_with("spiffe://");
        assert!(names_mesh || !pattern.matches(&id) || id.is_in(&mesh));
    }
});
