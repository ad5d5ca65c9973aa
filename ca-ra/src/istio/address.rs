//! Where the CA is. The agent has a type like this one, and imports no crate in which both could use it: a host and a
//! port are neither certificates nor identities.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use rustls::pki_types::ServerName;

/// Host and port, always over TLS: `istiod.istio-system.svc:15012`, `10.0.0.1:15012`, `[::1]:15012`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamAddress {
    name: ServerName<'static>,
    /// As a URI has it, with the brackets of an IPv6 address.
    authority: String,
    host: String,
    port: u16,
}

impl UpstreamAddress {
    /// The name that the CA's certificate must have.
    pub(super) fn name(&self) -> ServerName<'static> {
        self.name.clone()
    }

    /// Where to connect.
    pub(super) fn target(&self) -> (&str, u16) {
        (&self.host, self.port)
    }
}

impl FromStr for UpstreamAddress {
    type Err = UpstreamAddressError;

    fn from_str(text: &str) -> Result<Self, UpstreamAddressError> {
        let bare = match text.split_once("://") {
            None => text,
            Some(("https", rest)) => rest.strip_suffix('/').unwrap_or(rest),
            // The token would travel in the clear.
            Some(_) => return Err(UpstreamAddressError::NotHttps),
        };
        let (host, port) = bare.rsplit_once(':').ok_or(UpstreamAddressError::NoPort)?;
        // Digits alone: the parser of numbers takes a sign too.
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse().ok().filter(|port| digits && *port != 0);
        let port = port.ok_or(UpstreamAddressError::NoPort)?;
        let inside = host.strip_prefix('[').map(|host| host.strip_suffix(']'));
        let host = match inside {
            Some(inside) => inside.ok_or(UpstreamAddressError::NoHost)?,
            // Else the port would be the last group of an address.
            None if host.contains(':') => return Err(UpstreamAddressError::NeedsBrackets),
            None => host,
        };
        let is_v6 = matches!(host.parse(), Ok(IpAddr::V6(_)));
        if is_v6 != inside.is_some() {
            return Err(UpstreamAddressError::NoHost);
        }
        let name = ServerName::try_from(host).map_err(|_| UpstreamAddressError::NoHost)?;
        Ok(Self {
            name: name.to_owned(),
            authority: if is_v6 {
                format!("[{host}]:{port}")
            } else {
                format!("{host}:{port}")
            },
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for UpstreamAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.authority)
    }
}

/// Why a text is not the address of a CA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UpstreamAddressError {
    /// `http://` or something else.
    #[error("a CA is reached over https only")]
    NotHttps,
    /// No `:port`.
    #[error("expected host:port or https://host:port")]
    NoPort,
    /// Empty, or not a host.
    #[error("there is no host in front of the port")]
    NoHost,
    /// `::1:443`.
    #[error("an IPv6 address is written in brackets, as in [::1]:15012")]
    NeedsBrackets,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_and_all_kinds_of_hosts() {
        for (text, shown, host) in [
            ("127.0.0.1:15012", "127.0.0.1:15012", "127.0.0.1"),
            (
                "https://ca.example:15012/",
                "ca.example:15012",
                "ca.example",
            ),
            ("[::1]:1", "[::1]:1", "::1"),
        ] {
            let address: UpstreamAddress = text.parse().unwrap();
            assert_eq!(
                (address.to_string().as_str(), address.target().0),
                (shown, host)
            );
        }
    }

    #[test]
    fn nonsense_is_refused_with_the_right_reason() {
        use UpstreamAddressError::{NeedsBrackets, NoHost, NoPort, NotHttps};
        for (text, error) in [
            ("http://ca:15012", NotHttps),
            ("ca", NoPort),
            ("ca:", NoPort),
            ("ca:0", NoPort),
            ("ca:+1", NoPort),
            ("ca:65536", NoPort),
            ("https://ca:15012/path", NoPort),
            ("ca/path:15012", NoHost),
            (":15012", NoHost),
            ("user@ca:15012", NoHost),
            ("two words:15012", NoHost),
            ("[fe80::1%eth0]:1", NoHost),
            ("[10.0.0.1]:1", NoHost),
            ("::1:15012", NeedsBrackets),
        ] {
            assert_eq!(text.parse::<UpstreamAddress>(), Err(error), "{text}");
        }
    }
}
