//! Certificates that a foreign signer could send for one request: the right ones, and all kinds of wrong ones.

use std::sync::LazyLock;

use ca_core::{Certificate, Csr, SigningRequest, TrustBundle, create_csr_pem};
use ca_ra::ScreenedRequest;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, SanType,
    SerialNumber,
};
use time::Duration;

use crate::fixed::{self, CART, HOUR, NOW, WORKLOAD_KEY};

/// One request with what may come back for it.
pub struct Reply {
    pub request: ScreenedRequest,
    pub roots: TrustBundle,
    /// The leaf that one intermediate signed, and the leaf that stands below two.
    pub good_leaves: [Certificate; 2],
    /// The two intermediates, the upper one first.
    pub intermediates: [Certificate; 2],
    /// Harmless company: the root, and the intermediates' copies are dropped when they come.
    pub root: Certificate,
    /// What must never be released or passed on.
    pub strangers: Vec<Certificate>,
    /// The lists of the root, the intermediates and a stranger, as PEM.
    pub revocation: [String; 4],
}

impl Reply {
    /// The intermediates without which a good leaf leads nowhere; `None` for what is no good leaf.
    pub fn needed_above(&self, leaf: &Certificate) -> Option<&[Certificate]> {
        // The lower leaf needs both, the other one the upper alone.
        let at = self.good_leaves.iter().position(|good| good == leaf)?;
        Some(&self.intermediates[..=at])
    }

    /// All of them by number. The same at every start, so that a number keeps its meaning.
    pub fn pick(&self, number: u8) -> &Certificate {
        let [leaf, lower_leaf] = &self.good_leaves;
        let [upper, lower] = &self.intermediates;
        let known = [leaf, lower_leaf, upper, lower, &self.root];
        let number = usize::from(number) % (known.len() + self.strangers.len());
        known
            .get(number)
            .copied()
            .unwrap_or_else(|| &self.strangers[number - known.len()])
    }
}

/// The one that targets use.
pub static REPLY: LazyLock<Reply> = LazyLock::new(make);

fn make() -> Reply {
    let key = &*WORKLOAD_KEY;
    let csr = create_csr_pem(key, &[fixed::cart()]).expect("a request");
    let csr = Csr::from_pem(csr.as_bytes()).expect("a good request");
    let request = SigningRequest::new(csr, vec![fixed::cart()], HOUR);
    let request = ScreenedRequest::screen(request).expect("a harmless request");

    let workload = rcgen_key(1);
    let (root, root_ca) = ca("root", 10, None);
    let (upper, upper_ca) = ca("upper", 11, Some(&root_ca));
    let (lower, lower_ca) = ca("lower", 12, Some(&upper_ca));
    let (other_root, other_ca) = ca("other root", 13, None);
    let (crossed, _) = ca("upper", 11, Some(&other_ca));
    let (renewed, _) = ca("upper", 11, Some(&root_ca));

    let two_names = |params: &mut CertificateParams| {
        params
            .subject_alt_names
            .push(uri("spiffe://cluster.local/ns/shop/sa/admin"));
    };
    let strangers = vec![
        other_root,
        crossed,
        renewed,
        sign(&leaf(), &rcgen_key(4), &upper_ca),
        sign(&leaf(), &workload, &other_ca),
        sign(&with(two_names), &workload, &upper_ca),
        sign(&with(|p| p.subject_alt_names.clear()), &workload, &upper_ca),
        sign(
            &with(|p| p.not_after = NOW + Duration::hours(9)),
            &workload,
            &upper_ca,
        ),
        sign(
            &with(|p| p.not_after = NOW - Duration::seconds(1)),
            &workload,
            &upper_ca,
        ),
        sign(
            &with(|p| p.not_before = NOW + Duration::minutes(1)),
            &workload,
            &upper_ca,
        ),
        sign(
            &with(|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
            &workload,
            &upper_ca,
        ),
        read(&leaf().self_signed(&workload).expect("a certificate")),
    ];
    Reply {
        request,
        roots: TrustBundle::new([root.clone()]).expect("a CA certificate"),
        good_leaves: [
            sign(&leaf(), &workload, &upper_ca),
            sign(&leaf(), &workload, &lower_ca),
        ],
        intermediates: [upper, lower],
        root,
        strangers,
        revocation: [&root_ca, &upper_ca, &lower_ca, &other_ca].map(revocation_list),
    }
}

/// The upper intermediate when it was over already, and when it is not yet valid.
pub fn untimely() -> [Certificate; 2] {
    let (_, root_ca) = ca("root", 10, None);
    [-2, 2].map(|days| {
        let mut params = ca_params("upper");
        params.not_before += Duration::days(31 * days);
        params.not_after += Duration::days(31 * days);
        sign(&params, &rcgen_key(11), &root_ca)
    })
}

fn revocation_list(issuer: &Ca) -> String {
    let params = CertificateRevocationListParams {
        this_update: NOW - Duration::days(1),
        next_update: NOW + Duration::days(30),
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let list = params.signed_by(issuer).expect("a revocation list");
    pem::encode(&pem::Pem::new("X509 CRL", list.der().to_vec()))
}

fn with(change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = leaf();
    change(&mut params);
    params
}

fn leaf() -> CertificateParams {
    let mut params = blank();
    params.subject_alt_names = vec![uri(CART)];
    params.not_before = NOW - Duration::minutes(2);
    params.not_after = NOW + Duration::hours(1);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params
}

type Ca = Issuer<'static, KeyPair>;

fn ca(name: &str, key: u8, issuer: Option<&Ca>) -> (Certificate, Ca) {
    let params = ca_params(name);
    let key = rcgen_key(key);
    let certificate = match issuer {
        Some(issuer) => sign(&params, &key, issuer),
        None => read(&params.self_signed(&key).expect("a root")),
    };
    (certificate, Issuer::new(params, key))
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = blank();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = NOW - Duration::days(1);
    params.not_after = NOW + Duration::days(30);
    params
}

fn blank() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
}

fn sign(params: &CertificateParams, key: &KeyPair, issuer: &Ca) -> Certificate {
    read(&params.signed_by(key, issuer).expect("a certificate"))
}

fn read(certificate: &rcgen::Certificate) -> Certificate {
    Certificate::from_der(certificate.der().to_vec()).expect("a certificate reads")
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().expect("a URI"))
}

fn rcgen_key(number: u8) -> KeyPair {
    KeyPair::try_from(fixed::key_der(number)).expect("a key")
}
