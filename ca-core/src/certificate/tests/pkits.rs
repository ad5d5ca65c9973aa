//! The path validation tests of NIST (PKITS) that apply: certificates by an implementation that is not ours, with verdicts
//! by people who are not us.

use std::path::Path;

use time::macros::datetime;

use super::*;
use crate::crypto::RING;

/// The vectors are valid from 2010 to 2030.
const NOW: OffsetDateTime = datetime!(2020-06-01 12:00 UTC);

fn read(name: &str) -> Result<Certificate, CertificateError> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("testdata/pkits")
        .join(name)
        .with_extension("crt");
    Certificate::from_der(std::fs::read(path).unwrap())
}

#[test]
fn paths_are_judged_as_nist_judges_them_or_more_strictly() {
    let roots = TrustBundle::new([read("TrustAnchorRootCertificate").unwrap()]).unwrap();
    let list = include_str!("../../../testdata/pkits/paths.txt");
    let mut judged = 0;
    for line in list.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split(' ');
        let (verdict, section) = (words.next().unwrap(), words.next().unwrap());
        let certificates: Result<Vec<_>, _> = words.map(read).collect();
        let holds = certificates.is_ok_and(|certificates| {
            let (leaf, issuers) = certificates.split_first().unwrap();
            let given = CertificateChain::new(leaf.clone(), issuers.to_vec());
            // However the issuers are mixed, the path that is found is as good as the one that was given.
            let mixed: Vec<_> = issuers.iter().rev().cloned().collect();
            let found = CertificateChain::ordered(leaf.clone(), &mixed, &roots, &RING);
            let verdicts = [given, found].map(|chain| chain.verify(&roots, NOW).is_ok());
            assert_eq!(verdicts[0], verdicts[1], "{section}");
            verdicts[0]
        });
        match verdict {
            "valid" => assert!(holds, "{section} is valid"),
            "invalid" => assert!(!holds, "{section} is not valid"),
            // 4.2.3: a date before 1970 is no date to webpki.
            // 4.3.3, 4.3.5: names that differ in spaces or capitals are other names here, byte for byte.
            // 4.6.8: a CA's certificate is not a workload's.
            // 4.6.15: a CA that certifies itself anew counts towards the length of a path.
            "stricter" => assert!(!holds, "{section} is refused here"),
            other => panic!("{other}"),
        }
        judged += 1;
    }
    assert_eq!(judged, 31);
}
