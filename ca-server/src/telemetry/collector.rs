//! A collector, and how it is reached: OTLP over HTTP, in protobuf.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ca_proto::opentelemetry::proto::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use http::header::{CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use http::uri::Authority;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use prost::Message as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::args::TelemetryArgs;

/// Where traces go, if anywhere.
#[derive(Debug)]
pub(crate) struct Config(pub(super) Option<Collector>);

impl Config {
    pub(crate) fn new(args: TelemetryArgs) -> Result<Self, TelemetryError> {
        let Some(endpoint) = args.otlp_endpoint else {
            return Ok(Self(None));
        };
        let tls = match (endpoint.is_encrypted, args.otlp_certificate) {
            (true, Some(path)) => Some(tls(&path)?),
            (true, None) => return Err(TelemetryError::NoRoots),
            (false, _) => None,
        };
        Ok(Self(Some(Collector { endpoint, tls })))
    }
}

fn tls(path: &Path) -> Result<Arc<ClientConfig>, TelemetryError> {
    let pem = std::fs::read(path).map_err(|cause| TelemetryError::Read {
        path: path.into(),
        cause,
    })?;
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok);
    if roots.add_parsable_certificates(certificates).0 == 0 {
        return Err(TelemetryError::NoRootIn(path.into()));
    }
    // The provider is named: the process-wide one panics when two are linked.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TelemetryError::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The address of a collector, to which `/v1/traces` is added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    is_encrypted: bool,
    authority: Authority,
    path: String,
}

impl Endpoint {
    /// Without the brackets of an IPv6 address.
    fn host(&self) -> &str {
        let host = self.authority.host();
        host.strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host)
    }

    fn port(&self) -> u16 {
        let default = if self.is_encrypted { 443 } else { 80 };
        self.authority.port_u16().unwrap_or(default)
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let uri: Uri = text.parse().map_err(|_| EndpointError::NotAUrl)?;
        let is_encrypted = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(EndpointError::Scheme),
        };
        let authority = uri.authority().cloned().ok_or(EndpointError::NotAUrl)?;
        // It would be printed by `ca-server config`.
        if authority.as_str().contains('@') {
            return Err(EndpointError::User);
        }
        if authority.host().is_empty() || uri.query().is_some() || text.contains('#') {
            return Err(EndpointError::NotAUrl);
        }
        Ok(Self {
            is_encrypted,
            authority,
            path: format!("{}/v1/traces", uri.path().trim_end_matches('/')),
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_encrypted { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.path)
    }
}

/// Why a text is not the address of a collector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EndpointError {
    /// Not an address, or one with a query.
    #[error("not the URL of a host, possibly with a port and a path")]
    NotAUrl,
    /// Another protocol.
    #[error("it must start with http:// or https://")]
    Scheme,
    /// What is typed is seen by everybody on the machine.
    #[error("it holds a user name")]
    User,
}

/// Why traces cannot be sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TelemetryError {
    /// Nothing to verify the collector with.
    #[error("--otlp-endpoint with https needs --otlp-certificate")]
    NoRoots,
    /// No such file.
    #[error("cannot read {}: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        cause: io::Error,
    },
    /// A file without roots.
    #[error("{}: no certificate that can be a root", .0.display())]
    NoRootIn(PathBuf),
    /// The cryptography does not suit the protocol.
    #[error("TLS: {0}")]
    Tls(#[source] rustls::Error),
}

#[derive(Debug)]
pub(super) struct Collector {
    endpoint: Endpoint,
    /// For an address with https.
    tls: Option<Arc<ClientConfig>>,
}

impl Collector {
    /// Sends a batch, over a connection of its own: there is one every few seconds. Tells how many spans were rejected.
    pub(super) async fn send(&self, batch: &ExportTraceServiceRequest) -> Result<u64, SendError> {
        let body = Bytes::from(batch.encode_to_vec());
        let sent = tokio::time::timeout(DEADLINE, self.send_in_time(body)).await;
        sent.unwrap_or(Err(Failure::Late))
            .map_err(|failure| SendError {
                endpoint: self.endpoint.to_string(),
                failure,
            })
    }

    async fn send_in_time(&self, body: Bytes) -> Result<u64, Failure> {
        let host = self.endpoint.host();
        let tcp = TcpStream::connect((host, self.endpoint.port()))
            .await
            .map_err(Failure::Connect)?;
        let Some(tls) = &self.tls else {
            return self.exchange(tcp, body).await;
        };
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| Failure::Tls(io::Error::other(error)))?;
        let tls = TlsConnector::from(Arc::clone(tls))
            .connect(name, tcp)
            .await
            .map_err(Failure::Tls)?;
        self.exchange(tls, body).await
    }

    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        body: Bytes,
    ) -> Result<u64, Failure> {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::post(&self.endpoint.path)
            .header(HOST, self.endpoint.authority.as_str())
            .header(CONTENT_TYPE, "application/x-protobuf")
            .header(USER_AGENT, concat!("mesh-ca/", env!("CARGO_PKG_VERSION")))
            .header(CONNECTION, "close")
            .body(Full::new(body))
            .map_err(Failure::Request)?;
        let answer = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            if status != StatusCode::OK {
                return Err(Failure::Status(status));
            }
            let body = Limited::new(response.into_body(), MOST_ANSWER)
                .collect()
                .await;
            let body = body.map_err(|_| Failure::Answer)?.to_bytes();
            let answer = ExportTraceServiceResponse::decode(body).map_err(|_| Failure::Answer)?;
            let rejected = answer.partial_success.map(|partial| partial.rejected_spans);
            Ok(rejected.unwrap_or_default().try_into().unwrap_or_default())
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
}

/// Why spans did not arrive.
#[derive(Debug, thiserror::Error)]
#[error("{endpoint}: {failure}")]
pub(super) struct SendError {
    endpoint: String,
    #[source]
    failure: Failure,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    #[error("TLS: {0}")]
    Tls(#[source] io::Error),
    #[error("request: {0}")]
    Request(#[source] http::Error),
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("status {0}")]
    Status(StatusCode),
    #[error("the answer is not one of OTLP")]
    Answer,
    #[error("not sent within {DEADLINE:?}")]
    Late,
}

/// For a batch, from the look-up of the name to the answer: as OpenTelemetry's own exporters.
const DEADLINE: Duration = Duration::from_secs(10);
/// An answer is a count and a sentence.
const MOST_ANSWER: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_base_to_which_the_signal_is_added() {
        for (text, shown, host, port) in [
            (
                "http://localhost:4318",
                "http://localhost:4318/v1/traces",
                "localhost",
                4318,
            ),
            (
                "http://otel/base/",
                "http://otel/base/v1/traces",
                "otel",
                80,
            ),
            ("https://[::1]", "https://[::1]/v1/traces", "::1", 443),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.to_string(), shown);
            assert_eq!((endpoint.host(), endpoint.port()), (host, port));
        }
        for (text, error) in [
            ("", EndpointError::NotAUrl),
            ("localhost:4318", EndpointError::Scheme),
            ("/v1/traces", EndpointError::Scheme),
            ("grpc://localhost:4317", EndpointError::Scheme),
            ("http://user:word@host", EndpointError::User),
            ("http://host/?q", EndpointError::NotAUrl),
        ] {
            assert_eq!(text.parse::<Endpoint>(), Err(error), "{text:?}");
        }
    }

    fn config(words: &[&str]) -> Result<Config, String> {
        use clap::Parser as _;
        let args = crate::Args::try_parse_from(["ca-server"].iter().chain(words)).unwrap();
        let config = Config::new(args.telemetry);
        config.map_err(|error| error.to_string())
    }

    #[test]
    fn without_an_endpoint_there_is_no_collector_and_https_needs_roots() {
        assert!(config(&[]).unwrap().0.is_none());
        assert!(
            config(&["--otlp-endpoint", "http://a"])
                .unwrap()
                .0
                .is_some()
        );
        let https = ["--otlp-endpoint", "https://a"];
        assert_eq!(
            config(&https).unwrap_err(),
            "--otlp-endpoint with https needs --otlp-certificate"
        );
        let with = |file: &str| config(&[&https[..], &["--otlp-certificate", file]].concat());
        assert!(
            with("/no/such/file")
                .unwrap_err()
                .starts_with("cannot read /no/such/file: ")
        );
        assert_eq!(
            with("Cargo.toml").unwrap_err(),
            "Cargo.toml: no certificate that can be a root"
        );
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, ca_core::testing::TestCa::new("td").root_pem()).unwrap();
        let config = with(path.to_str().unwrap()).unwrap();
        assert!(config.0.unwrap().tls.is_some());
    }
}
