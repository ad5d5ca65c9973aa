//! Callers behind a proxy, which has verified their certificate and tells us of it.

use ca_core::{BoxFuture, SpiffeId, TrustDomain};
use time::OffsetDateTime;

use crate::address_range::TrustedProxies;
use crate::authenticator::{Authenticator, AuthnError};
use crate::caller::{Caller, Identities, Source};
use crate::evidence::Evidence;

/// Takes the SPIFFE IDs that a trusted proxy has put into `x-forwarded-client-cert`.
///
/// Stricter than Istio, because this header is a name that somebody merely says:
/// - Only IDs of workloads in our own trust domain count. Host names and the common name do not.
/// - **Only one element counts, in one header.** In a list, all but the last were told by somebody else
///   than the proxy that speaks to us; and the last then is that other proxy, and not the caller. Let the
///   proxy replace the header (`forward_client_cert_details: SANITIZE_SET`).
/// - Loopback addresses are trusted only when they are configured.
#[derive(Clone, Debug)]
pub struct ForwardedCertificateAuthenticator {
    trust_domain: TrustDomain,
    proxies: TrustedProxies,
}

impl ForwardedCertificateAuthenticator {
    /// Accepts names in `trust_domain` from `proxies`.
    pub fn new(trust_domain: TrustDomain, proxies: TrustedProxies) -> Self {
        Self {
            trust_domain,
            proxies,
        }
    }

    fn judge(&self, evidence: &Evidence, now: OffsetDateTime) -> Result<Caller, AuthnError> {
        let rejected = |reason: &str| Err(AuthnError::Rejected(reason.into()));
        let value = match evidence.forwarded_certificates() {
            [] => return Err(AuthnError::NotPresented),
            _ if !self.proxies.sent(evidence) => {
                return rejected("the header does not come from a trusted proxy");
            }
            [value] => value,
            _ => return rejected("the header is there more than once"),
        };
        let mut elements = ForwardedCertificate::parse_list(value)
            .map_err(|error| AuthnError::Rejected(error.into()))?;
        let (Some(element), None) = (elements.pop(), elements.pop()) else {
            return rejected("the header speaks of more than one connection");
        };
        let ids = element.uris.iter().filter_map(|uri| uri.parse().ok());
        let ids: Vec<SpiffeId> = ids
            .filter(|id: &SpiffeId| id.is_in(&self.trust_domain) && !id.path().is_empty())
            .collect();
        let Some(identities) = Identities::new(ids) else {
            let text = format!(
                "the forwarded certificate has no SPIFFE ID of a workload in {}",
                self.trust_domain
            );
            return rejected(&text);
        };
        let source = Source::ForwardedCertificate {
            proxy: evidence.peer_address().map(|address| address.ip()),
        };
        // The proxy vouches for one request. When the certificate ends, it does not say.
        Ok(Caller::new(NAME, source, identities, now))
    }
}

impl Authenticator for ForwardedCertificateAuthenticator {
    fn name(&self) -> &'static str {
        NAME
    }

    fn authenticate<'a>(
        &'a self,
        evidence: &'a Evidence,
        now: OffsetDateTime,
    ) -> BoxFuture<'a, Result<Caller, AuthnError>> {
        Box::pin(std::future::ready(self.judge(evidence, now)))
    }
}

/// What a proxy says of the client certificate of one connection: one element of the header
/// `x-forwarded-client-cert`, as Envoy writes it. What we do not need of it is read and dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ForwardedCertificate {
    /// The proxy's own names.
    pub by: Vec<String>,
    /// SHA-256 of the certificate.
    pub hash: Option<String>,
    /// The subject as text.
    pub subject: Option<String>,
    /// Its URI names.
    pub uris: Vec<String>,
    /// Its host names.
    pub dns_names: Vec<String>,
}

impl ForwardedCertificate {
    /// A longer header is refused unread. One with a whole chain in it has some KiB.
    pub const MAX_HEADER_BYTES: usize = 64 * 1024;

    /// Reads a header: elements between commas, each of pairs between semicolons, each a key and a value
    /// around an equals sign. A value with one of these three in it stands between double quotes; there, a
    /// backslash and what follows it are one, and `\"` is a quote.
    ///
    /// # Errors
    /// When the text is anything else, has a key without a name, or a key twice that can be there once.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, ForwardedError> {
        if text.len() > Self::MAX_HEADER_BYTES {
            return Err(ForwardedError::TooLong);
        }
        let mut reader = Reader { text, at: 0 };
        let mut elements = vec![Self::default()];
        loop {
            reader.skip_blanks();
            let key = reader.key()?;
            let value = reader.value()?;
            // The list begins with one, and only grows.
            if let Some(element) = elements.last_mut() {
                element.set(key, value).ok_or_else(|| reader.wrong())?;
            }
            reader.skip_blanks();
            match reader.next() {
                None => return Ok(elements),
                Some(';') => {}
                Some(',') => elements.push(Self::default()),
                Some(_) => return Err(reader.wrong()),
            }
        }
    }

    /// `None` when it is there already.
    fn set(&mut self, key: &str, value: String) -> Option<()> {
        let set_once = |place: &mut Option<String>, value| place.replace(value).is_none();
        let fits = match key.to_ascii_lowercase().as_str() {
            "by" => {
                self.by.push(value);
                true
            }
            "uri" => {
                self.uris.push(value);
                true
            }
            "dns" => {
                self.dns_names.push(value);
                true
            }
            "hash" => set_once(&mut self.hash, value),
            "subject" => set_once(&mut self.subject, value),
            // The certificate itself, its chain, and what may come.
            _ => true,
        };
        fits.then_some(())
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn next(&mut self) -> Option<char> {
        let next = self.rest().chars().next()?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn skip_blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t']).len();
    }

    /// The place just read.
    fn wrong(&self) -> ForwardedError {
        ForwardedError::Form { at: self.at }
    }

    fn key(&mut self) -> Result<&'a str, ForwardedError> {
        let rest = self.rest();
        let length = rest.find(|c: char| !c.is_ascii_alphanumeric());
        let length = length.unwrap_or(rest.len());
        self.at += length;
        if length == 0 || self.next() != Some('=') {
            return Err(self.wrong());
        }
        Ok(&rest[..length])
    }

    fn value(&mut self) -> Result<String, ForwardedError> {
        if !self.rest().starts_with('"') {
            let rest = self.rest();
            let end = rest.find([',', ';']).unwrap_or(rest.len());
            let value = rest[..end].trim_end_matches([' ', '\t']);
            self.at += end;
            if value.contains(|c: char| matches!(c, '"' | '=' | ' ') || c.is_control()) {
                return Err(self.wrong());
            }
            return Ok(value.into());
        }
        let mut value = String::new();
        // The opening quote.
        self.next();
        loop {
            match self.next() {
                Some('"') => return Ok(value),
                // Envoy escapes quotes, and leaves the escapes of a subject (RFC 2253) as they are.
                Some('\\') => match self.next() {
                    Some('"') => value.push('"'),
                    Some(other) if !other.is_control() => value.extend(['\\', other]),
                    _ => return Err(self.wrong()),
                },
                Some(other) if !other.is_control() => value.push(other),
                _ => return Err(self.wrong()),
            }
        }
    }
}

/// Why a header cannot be read. Does not quote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ForwardedError {
    /// Longer than [`ForwardedCertificate::MAX_HEADER_BYTES`].
    #[error(
        "the header is longer than {} bytes",
        ForwardedCertificate::MAX_HEADER_BYTES
    )]
    TooLong,
    /// Not what a proxy writes.
    #[error("the header cannot be read (byte {at})")]
    Form {
        /// Where reading stopped.
        at: usize,
    },
}

const NAME: &str = "forwarded-certificate";

#[cfg(test)]
mod tests;
