//! Where somebody is who is asked.

use std::{fmt, net::Ipv6Addr, str::FromStr};

use http::Uri;

/// Host and port, always over TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerAddress {
    /// Without the brackets of an IPv6 address.
    host: String,
    port: u16,
    origin: Uri,
}

impl ServerAddress {
    /// A DNS name or an IP address.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What requests name as their target.
    pub(crate) fn origin(&self) -> &Uri {
        &self.origin
    }
}

impl FromStr for ServerAddress {
    type Err = ServerAddressError;

    fn from_str(text: &str) -> Result<Self, ServerAddressError> {
        let bare = match text.split_once("://") {
            None => text,
            Some(("https", rest)) => rest.strip_suffix('/').unwrap_or(rest),
            // The token would travel in the clear.
            Some(_) => return Err(ServerAddressError::NotHttps),
        };
        let (host, port) = bare.rsplit_once(':').ok_or(ServerAddressError::NoPort)?;
        let port = port
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .ok_or(ServerAddressError::NoPort)?;
        let host = match host.strip_prefix('[') {
            Some(inside) => inside.strip_suffix(']').ok_or(ServerAddressError::NoHost)?,
            // Else the port would be the last group of an address.
            None if host.contains(':') => return Err(ServerAddressError::NeedsBrackets),
            None => host,
        };
        let shown = if host.contains(':') {
            // An interface name behind `%` has no place in a URI or a certificate.
            let address: Ipv6Addr = host.parse().map_err(|_| ServerAddressError::NoHost)?;
            format!("[{address}]:{port}")
        } else {
            format!("{host}:{port}")
        };
        if host.is_empty() || host.contains(['@', '/', '?', '#']) {
            return Err(ServerAddressError::NoHost);
        }
        let origin = format!("https://{shown}")
            .parse()
            .map_err(|_| ServerAddressError::NoHost)?;
        Ok(Self {
            host: host.to_owned(),
            port,
            origin,
        })
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Why a text is not such an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServerAddressError {
    /// `http://` or something else.
    #[error("it is reached over https only")]
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
        for (text, shown) in [
            ("127.0.0.1:15012", "127.0.0.1:15012"),
            ("https://127.0.0.1:15012", "127.0.0.1:15012"),
            (
                "https://istiod.istio-system.svc:15012/",
                "istiod.istio-system.svc:15012",
            ),
            ("[::1]:15012", "[::1]:15012"),
        ] {
            let address: ServerAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), shown);
            assert_eq!(address.origin().authority().unwrap().as_str(), shown);
        }
        assert_eq!("[::1]:1".parse::<ServerAddress>().unwrap().host(), "::1");
    }

    #[test]
    fn nonsense_is_refused_with_the_right_reason() {
        for (text, error) in [
            ("http://ca:15012", ServerAddressError::NotHttps),
            ("ca", ServerAddressError::NoPort),
            ("", ServerAddressError::NoPort),
            ("ca:", ServerAddressError::NoPort),
            ("ca:0", ServerAddressError::NoPort),
            ("ca:65536", ServerAddressError::NoPort),
            ("https://ca:15012/path", ServerAddressError::NoPort),
            ("ca/path:15012", ServerAddressError::NoHost),
            (":15012", ServerAddressError::NoHost),
            ("[::1:15012", ServerAddressError::NoHost),
            ("user@ca:15012", ServerAddressError::NoHost),
            ("two words:15012", ServerAddressError::NoHost),
            ("[fe80::1%eth0]:1", ServerAddressError::NoHost),
            ("[a:b]:1", ServerAddressError::NoHost),
            ("::1:15012", ServerAddressError::NeedsBrackets),
        ] {
            assert_eq!(text.parse::<ServerAddress>(), Err(error), "{text}");
        }
    }
}
