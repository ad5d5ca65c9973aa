//! Small documents of known places, fetched over HTTPS.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use pki_types::pem::PemObject as _;
use pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Fetches one document at a time, each over a connection of its own: it is asked every few minutes.
///
/// Redirects are not followed, because a place that may name another one is no longer a known place.
/// Proxies are not used. Cheap to clone.
#[derive(Clone, Debug)]
pub struct HttpsClient {
    tls: Arc<ClientConfig>,
    deadline: Duration,
}

impl HttpsClient {
    /// Longer documents are refused. The key sets of large issuers have a few KiB.
    pub const MAX_BODY_BYTES: usize = 512 * 1024;

    /// Trusts servers with a certificate below one of the roots in `pem`. Roots that cannot be read are
    /// passed over, as long as one can: the lists of operating systems hold old ones.
    ///
    /// # Errors
    /// When there is no root in the text, or none can be read.
    pub fn new(pem: &[u8]) -> Result<Self, HttpsClientError> {
        let mut roots = RootCertStore::empty();
        let certificates = CertificateDer::pem_slice_iter(pem).filter_map(Result::ok);
        let (added, passed_over) = roots.add_parsable_certificates(certificates);
        if added == 0 {
            return Err(HttpsClientError::NoRoot { passed_over });
        }
        // The provider is named: the process-wide one panics when two are linked.
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(HttpsClientError::Tls)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            tls: Arc::new(tls),
            deadline: Duration::from_secs(5),
        })
    }

    /// How long a document may take, from the look-up of the name to the last byte. 5 s unless changed.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// The document at `url`.
    ///
    /// # Errors
    /// When it does not come whole, in time and with status 200.
    pub async fn get(&self, url: &DocumentUrl) -> Result<Bytes, FetchError> {
        let fetched = tokio::time::timeout(self.deadline, self.get_in_time(url)).await;
        let fetched = fetched.unwrap_or(Err(FetchFailure::Late {
            deadline: self.deadline,
        }));
        fetched.map_err(|failure| FetchError {
            url: url.to_string(),
            failure,
        })
    }

    async fn get_in_time(&self, url: &DocumentUrl) -> Result<Bytes, FetchFailure> {
        let tcp = TcpStream::connect((url.host(), url.port()))
            .await
            .map_err(FetchFailure::Connect)?;
        if !url.is_encrypted() {
            return exchange(tcp, url).await;
        }
        let name = ServerName::try_from(url.host().to_owned())
            .map_err(|error| FetchFailure::Tls(io::Error::other(error)))?;
        let tls = TlsConnector::from(Arc::clone(&self.tls))
            .connect(name, tcp)
            .await
            .map_err(FetchFailure::Tls)?;
        exchange(tls, url).await
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    url: &DocumentUrl,
) -> Result<Bytes, FetchFailure> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(url.path_and_query())
        .header(HOST, url.authority())
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, concat!("mesh-ca/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(FetchFailure::Request)?;
    let answer = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        if status != StatusCode::OK {
            return Err(FetchFailure::Status { status });
        }
        let body = Limited::new(response.into_body(), HttpsClient::MAX_BODY_BYTES);
        let body = body.collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                return FetchFailure::TooLarge;
            }
            match error.downcast() {
                Ok(error) => FetchFailure::Http(*error),
                Err(error) => FetchFailure::Connect(io::Error::other(error)),
            }
        })?;
        Ok(body.to_bytes())
    };
    // In one task, so that nothing of the connection is left when we stop waiting.
    tokio::pin!(answer, connection);
    tokio::select! {
        // What has arrived counts before the end of the connection it came on.
        biased;
        answer = &mut answer => answer,
        ended = &mut connection => {
            ended?;
            answer.await
        }
    }
}

/// Where a document is: `https://…`, or `http://…` on a loopback address, where nobody listens in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentUrl(Uri);

impl DocumentUrl {
    /// `text` as it may be shown, whatever it is: where it has an address in it, without what stands there before the host, which
    /// may be a password. Addresses end at a double quote or with the line.
    pub fn without_userinfo(text: &str) -> Cow<'_, str> {
        let mut shown = String::new();
        let mut is_whole = true;
        let mut rest = text;
        while let Some((before, after)) = behind_scheme(rest) {
            let (address, behind) = after.split_at(after.find(['"', '\n']).unwrap_or(after.len()));
            let userinfo = userinfo(address);
            shown += before;
            if !userinfo.is_empty() {
                shown += "…@";
                is_whole = false;
            }
            shown += &address[userinfo.len()..];
            rest = behind;
        }
        if is_whole {
            return text.into();
        }
        (shown + rest).into()
    }

    /// Whether what comes from there is protected by TLS, and not by being on this machine.
    pub fn is_encrypted(&self) -> bool {
        self.0.scheme_str() == Some("https")
    }

    fn host(&self) -> &str {
        host(&self.0)
    }

    fn port(&self) -> u16 {
        let default = if self.is_encrypted() { 443 } else { 80 };
        self.0.port_u16().unwrap_or(default)
    }

    fn authority(&self) -> &str {
        self.0.authority().map_or("", http::uri::Authority::as_str)
    }

    fn path_and_query(&self) -> &str {
        self.0
            .path_and_query()
            .map_or("/", http::uri::PathAndQuery::as_str)
    }
}

/// What stands before an address, with its scheme, and the address. JSON may write a slash with a backslash.
fn behind_scheme(text: &str) -> Option<(&str, &str)> {
    let ends = ["://", ":\\/\\/"].map(|mark| Some(text.find(mark)? + mark.len()));
    let end = ends.into_iter().flatten().min()?;
    Some(text.split_at(end))
}

/// What stands before the host, with its `@`; nothing where an address begins with the host. Whoever has typed a password may have
/// forgotten that a slash in it is written as `%2F`: what would be no port is taken for one.
fn userinfo(address: &str) -> &str {
    let authority = address
        .split(['/', '\\', '?', '#'])
        .next()
        .unwrap_or_default();
    let within = if authority.contains('@') || is_host_and_port(authority) {
        authority
    } else {
        address
    };
    within.rfind('@').map_or("", |at| &address[..=at])
}

/// Without the brackets of an IPv6 address.
fn host(uri: &Uri) -> &str {
    let host = uri.host().unwrap_or_default();
    host.strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host)
}

/// A name, an IPv4 address or an IPv6 address in brackets, then nothing or a colon and a port.
fn is_host_and_port(authority: &str) -> bool {
    let (is_host, port) = match authority
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
    {
        Some((address, port)) => (address.parse::<std::net::Ipv6Addr>().is_ok(), port),
        None => {
            let (name, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
            let is_name_byte = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
            (!name.is_empty() && name.bytes().all(is_name_byte), port)
        }
    };
    let is_port = port.is_empty()
        || port
            .strip_prefix(':')
            .is_some_and(|port| port.parse::<u16>().is_ok());
    is_host && is_port
}

impl FromStr for DocumentUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let refuse = |why| UrlError {
            url: Self::without_userinfo(text).into_owned(),
            why,
        };
        let uri: Uri = text.parse().map_err(|_| refuse("it is not a URL"))?;
        let host = host(&uri);
        if host.is_empty() || text.contains('#') {
            return Err(refuse("it does not name a document on a host"));
        }
        // Passwords in addresses end up in logs.
        if uri.authority().is_some_and(|a| a.as_str().contains('@')) {
            return Err(refuse("it holds a user name"));
        }
        // The library is lax: half a bracket is a name to it, and a port that is no number is no port.
        let authority = uri.authority().map_or("", http::uri::Authority::as_str);
        if !is_host_and_port(authority) {
            return Err(refuse(
                "it is not a host, possibly with a port from 0 to 65535",
            ));
        }
        let is_loopback = host == "localhost"
            || host
                .parse::<IpAddr>()
                .is_ok_and(|address| address.is_loopback());
        match uri.scheme_str() {
            Some("https") => Ok(Self(uri)),
            Some("http") if is_loopback => Ok(Self(uri)),
            _ => Err(refuse("it must start with https://")),
        }
    }
}

impl fmt::Display for DocumentUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a text is not where a document is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("URL {url:?}: {why}")]
pub struct UrlError {
    url: String,
    why: &'static str,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpsClientError {
    /// Nothing to trust.
    #[error("no certificate that can be a root ({passed_over} passed over)")]
    NoRoot {
        /// How many certificates there are that cannot be used.
        passed_over: usize,
    },
    /// The cryptography does not suit the protocol.
    #[error("TLS: {0}")]
    Tls(#[source] rustls::Error),
}

/// Why there is no document.
#[derive(Debug, thiserror::Error)]
#[error("{url}: {failure}")]
pub struct FetchError {
    url: String,
    #[source]
    failure: FetchFailure,
}

#[derive(Debug, thiserror::Error)]
enum FetchFailure {
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    #[error("TLS: {0}")]
    Tls(#[source] io::Error),
    #[error("request: {0}")]
    Request(#[source] http::Error),
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("status {status}{}", if status.is_redirection() { ", and redirects are not followed" } else { "" })]
    Status { status: StatusCode },
    #[error("larger than {} bytes", HttpsClient::MAX_BODY_BYTES)]
    TooLarge,
    #[error("not complete within {deadline:?}")]
    Late { deadline: Duration },
}

#[cfg(test)]
pub(crate) mod tests;
