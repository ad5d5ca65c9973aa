//! An issued chain as Istio's wire lays it out.

use super::IssuedChain;
use crate::certificate::{Certificate, CertificateChain, CertificateError};
use crate::trust::{TrustBundle, TrustError};

/// `cert_chain` of `istio.v1.auth.IstioCertificateResponse`: one element of PEM for each certificate, leaf first; then all
/// roots in one element, which clients take from the end.
impl IssuedChain {
    /// As elements.
    pub fn to_elements(&self) -> Vec<String> {
        let certificates = self.chain.iter().map(Certificate::to_pem);
        certificates
            .chain([self.roots.to_pem()])
            .map(str::to_owned)
            .collect()
    }

    /// Reads elements. **Nothing is judged yet**: see [`CertificateChain::verify`].
    ///
    /// Some CAs repeat their root among the intermediates. A peer must have it already, so it is left out.
    ///
    /// # Errors
    /// When there are fewer than two elements, one does not read, or one other than the last holds more than one
    /// certificate.
    pub fn from_elements(elements: &[String]) -> Result<Self, ElementsError> {
        let [leaf, between @ .., roots] = elements else {
            return Err(ElementsError::TooFew(elements.len()));
        };
        let leaf = one_certificate(0, leaf)?;
        let roots = TrustBundle::from_pem(roots.as_bytes()).map_err(ElementsError::Roots)?;
        let mut intermediates = Vec::with_capacity(between.len());
        for (index, element) in (1..).zip(between) {
            let certificate = one_certificate(index, element)?;
            if !(certificate.is_self_issued() && roots.contains(&certificate)) {
                intermediates.push(certificate);
            }
        }
        Ok(Self::new(CertificateChain::new(leaf, intermediates), roots))
    }
}

fn one_certificate(index: usize, element: &str) -> Result<Certificate, ElementsError> {
    let mut certificates = Certificate::all_from_pem(element.as_bytes())
        .map_err(|source| ElementsError::Certificate { index, source })?;
    match certificates.pop() {
        Some(certificate) if certificates.is_empty() => Ok(certificate),
        _ => Err(ElementsError::TooLong(index)),
    }
}

/// Why elements are not an issued chain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ElementsError {
    /// Without roots.
    #[error(
        "the answer has {0} elements, and at least two are needed: the certificate and the roots"
    )]
    TooFew(usize),
    /// One does not read.
    #[error("element {index} of the answer is not a certificate: {source}")]
    Certificate {
        /// Which one, from 0.
        index: usize,
        /// Why not.
        source: CertificateError,
    },
    /// More than one certificate where one belongs.
    #[error("element {0} of the answer holds more than one certificate")]
    TooLong(usize),
    /// Without usable roots.
    #[error("the last element of the answer does not hold roots: {0}")]
    Roots(#[source] TrustError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestCa;

    #[test]
    fn an_answer_is_leaf_intermediates_and_roots() {
        let ca = TestCa::new("cluster.local");
        let (_, chain) = ca.workload("shop", "cart");
        let (leaf, root) = (chain.leaf().to_pem().to_owned(), ca.root_pem());
        let between = TestCa::new("cluster.local").root_pem();

        let elements = [leaf.clone(), root.clone()];
        let issued = IssuedChain::from_elements(&elements).unwrap();
        assert_eq!(issued.chain().leaf(), chain.leaf());
        assert!(issued.chain().intermediates().is_empty());
        assert_eq!(issued.roots(), &ca.roots());
        assert_eq!(issued.to_elements(), elements);

        let elements = [leaf.clone(), between.clone(), root.clone()];
        let issued = IssuedChain::from_elements(&elements).unwrap();
        assert_eq!(issued.chain().intermediates().len(), 1);
        assert_eq!(issued.to_elements(), elements);

        let both = format!("{root}{between}");
        let elements = [leaf.clone(), root.clone(), both.clone()];
        let issued = IssuedChain::from_elements(&elements).unwrap();
        assert!(
            issued.chain().intermediates().is_empty(),
            "a root is not served"
        );
        assert_eq!(issued.roots().certificates().len(), 2);

        let wrong = |elements: &[&str]| {
            let elements: Vec<_> = elements.iter().map(ToString::to_string).collect();
            IssuedChain::from_elements(&elements)
                .unwrap_err()
                .to_string()
        };
        assert!(wrong(&[]).contains("0 elements"));
        assert!(wrong(&[&leaf]).contains("1 elements"));
        assert!(wrong(&["", &root]).contains("element 0"));
        assert!(wrong(&[&both, &root]).contains("more than one"));
        assert!(wrong(&[&leaf, "junk", &root]).contains("element 1"));
        assert!(wrong(&[&leaf, ""]).contains("last element"));
        assert!(
            wrong(&[&leaf, &leaf]).contains("last element"),
            "a leaf is no root"
        );
    }

    #[test]
    fn elements_may_lack_the_line_feed_at_their_end_and_gain_it() {
        let ca = TestCa::new("cluster.local");
        let (_, chain) = ca.workload("shop", "cart");
        let whole = [
            chain.leaf().to_pem().to_owned(),
            TestCa::new("cluster.local").root_pem(),
            ca.root_pem(),
        ];
        let bare: Vec<_> = whole.iter().map(|pem| pem.trim_end().to_owned()).collect();
        let issued = IssuedChain::from_elements(&bare).unwrap();
        assert_eq!(issued.to_elements(), whole);
        // One after the other they are a chain that reads.
        assert_eq!(issued.chain().to_pem(), whole[..2].concat());
    }
}
