//! What Istio's wire answers: the certificate, one element for each intermediate, and last all roots in one element.

use ca_core::{Certificate, CertificateChain, CertificateError, TrustBundle, TrustError};

/// Reads `cert_chain`. Nothing is judged yet.
pub(super) fn read(elements: &[String]) -> Result<(CertificateChain, TrustBundle), AnswerError> {
    let [first, between @ .., roots] = elements else {
        return Err(AnswerError::TooFewElements(elements.len()));
    };
    let roots = TrustBundle::from_pem(roots.as_bytes()).map_err(AnswerError::Roots)?;
    let first = one_certificate(0, first)?;
    let between = (1..).zip(between);
    let intermediates: Vec<_> = between
        .map(|(index, element)| one_certificate(index, element))
        .collect::<Result<_, _>>()?;
    Ok((CertificateChain::new(first, intermediates), roots))
}

fn one_certificate(index: usize, element: &str) -> Result<Certificate, AnswerError> {
    let mut certificates = Certificate::all_from_pem(element.as_bytes())
        .map_err(|source| AnswerError::Element { index, source })?;
    match certificates.pop() {
        Some(certificate) if certificates.is_empty() => Ok(certificate),
        _ => Err(AnswerError::ElementTooLong(index)),
    }
}

/// Why an answer cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// Without roots.
    #[error(
        "the answer has {0} elements, and at least two are needed: the certificate and the roots"
    )]
    TooFewElements(usize),
    /// One does not read.
    #[error("element {index} of the answer is not a certificate: {source}")]
    Element {
        /// Which one, from 0.
        index: usize,
        /// Why not.
        source: CertificateError,
    },
    /// More than one certificate where one belongs.
    #[error("element {0} of the answer holds more than one certificate")]
    ElementTooLong(usize),
    /// Without usable roots.
    #[error("the last element of the answer does not hold roots: {0}")]
    Roots(#[source] TrustError),
}

#[cfg(test)]
mod tests {
    use ca_core::testing::TestCa;

    use super::*;

    #[test]
    fn an_answer_is_certificate_intermediates_and_roots() {
        let ca = TestCa::new("cluster.local");
        let (_, chain) = ca.workload("shop", "cart");
        let (leaf, root) = (chain.leaf().to_pem().to_owned(), ca.root_pem());
        let other = TestCa::new("cluster.local").root_pem();
        let both = format!("{root}{other}");

        let (chain, roots) = read(&[leaf.clone(), other.clone(), both.clone()]).unwrap();
        assert_eq!((chain.iter().count(), roots.certificates().len()), (2, 2));

        let wrong = |elements: &[&str]| {
            let elements: Vec<_> = elements.iter().map(ToString::to_string).collect();
            read(&elements).unwrap_err().to_string()
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
}
