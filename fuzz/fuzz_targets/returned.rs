#![no_main]

use ca_core::CertificateChain;
use libfuzzer_sys::fuzz_target;
use mesh_ca_fuzz::fixed::NOW;
use mesh_ca_fuzz::reply::REPLY;

// Of all that a foreign signer may send, in any order, only the right certificate is released, with a chain in order.
fuzz_target!(|numbers: &[u8]| {
    let Some((leaf, others)) = numbers.split_first() else {
        return;
    };
    let leaf = REPLY.pick(*leaf);
    let others: Vec<_> = others
        .iter()
        .take(16)
        .map(|n| REPLY.pick(*n).clone())
        .collect();
    let sent = CertificateChain::new(leaf.clone(), others.clone());
    let Ok(released) = REPLY.request.accept(&sent, &REPLY.roots, NOW) else {
        let Some(needed) = REPLY.needed_above(leaf) else {
            return;
        };
        let harmless = |c| needed.contains(c) || *c == REPLY.root || c == leaf;
        let complete = needed.iter().all(|c| others.contains(c));
        assert!(
            !complete || !others.iter().all(harmless),
            "refused without need"
        );
        return;
    };
    assert!(REPLY.good_leaves.contains(released.chain().leaf()));
    assert_eq!(released.roots(), &REPLY.roots);
    released
        .chain()
        .verify(released.roots(), NOW)
        .expect("it verifies");
    let chain: Vec<_> = released.chain().iter().collect();
    assert!(
        chain
            .iter()
            .all(|c| !c.is_self_issued() && *c != &REPLY.root)
    );
    assert!(
        chain
            .windows(2)
            .all(|pair| pair[0].issuer_der() == pair[1].subject_der())
    );
});
