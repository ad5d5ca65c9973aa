#![no_main]

use ca_core::CertificateChain;
use ca_core::crypto::RING;
use libfuzzer_sys::fuzz_target;
use mesh_ca_fuzz::fixed::NOW;
use mesh_ca_fuzz::reply::REPLY;

// Out of any heap of certificates comes a chain in order; and if a path to a root is in the heap, it is found.
fuzz_target!(|numbers: &[u8]| {
    let Some((leaf, heap)) = numbers.split_first() else {
        return;
    };
    let leaf = REPLY.pick(*leaf).clone();
    let heap: Vec<_> = heap
        .iter()
        .take(16)
        .map(|n| REPLY.pick(*n).clone())
        .collect();
    let chain = CertificateChain::ordered(leaf.clone(), &heap, &REPLY.roots, &RING);
    assert_eq!(chain.leaf(), &leaf);
    let path: Vec<_> = chain.iter().collect();
    assert!(
        path.windows(2)
            .all(|pair| pair[0].is_signed_by(pair[1], &RING))
    );
    assert!(chain.intermediates().iter().all(|c| heap.contains(c)));
    for (at, certificate) in path.iter().enumerate() {
        assert!(!path[..at].contains(certificate), "a certificate twice");
        assert!(at == 0 || !REPLY.roots.contains(certificate));
    }
    let needed = REPLY.needed_above(&leaf);
    if needed.is_some_and(|needed| needed.iter().all(|c| heap.contains(c))) {
        chain.verify(&REPLY.roots, NOW).expect("there is a path");
    }
});
