//! Handshakes of one listener that came to nothing: each is counted by why, and told where somebody should look.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustls::CertificateError;
use rustls::pki_types::UnixTime;
use time::OffsetDateTime;

use crate::report::shown;

/// Counts those that failed. Cheap to clone; clones count together.
#[derive(Clone, Debug)]
pub(crate) struct Handshakes {
    /// Of the listener.
    name: Arc<str>,
    failed: Arc<[AtomicU64; Failure::ALL.len()]>,
}

/// Why one failed, as far as metrics tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The client has shown a certificate, and it is not good.
    ClientCertificate,
    /// The client has said that it does not go on: most likely it does not accept our certificate.
    RefusedByClient,
    /// There is no certificate to show, or its key failed.
    ServerCertificate,
    /// What came was not TLS, or not as we speak it.
    Protocol,
    TimedOut,
    /// The connection ended: load balancers probe in this way.
    Closed,
    /// Ended by us, since there were too many at once.
    GivenUp,
}

impl Handshakes {
    pub(super) fn of(name: &Arc<str>) -> Self {
        Self {
            name: Arc::clone(name),
            failed: Arc::default(),
        }
    }

    /// Counts one, and says who it was.
    pub(super) fn failed(&self, address: SocketAddr, error: &io::Error) {
        let (listener, peer) = (&*self.name, address.to_string());
        let tls = tls_error(error);
        if let Some(rustls::Error::InvalidCertificate(error)) = tls {
            let reason = not_accepted(error);
            tracing::info!(listener, peer, reason, "client certificate not accepted");
        } else {
            // Everybody who can connect can cause these, and probes do.
            tracing::debug!(
                listener,
                peer,
                reason = error.to_string(),
                "TLS handshake failed"
            );
        }
        self.count(Failure::of(error.kind(), tls));
    }

    pub(super) fn gave_up(&self) {
        self.count(Failure::GivenUp);
    }

    fn count(&self, failure: Failure) {
        self.failed[failure as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were of each kind.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let count = |failure: Failure| self.failed[failure as usize].load(Ordering::Relaxed);
        Failure::ALL
            .map(|failure| (failure.name(), count(failure)))
            .into_iter()
    }
}

impl Failure {
    const ALL: [Self; 7] = [
        Self::ClientCertificate,
        Self::RefusedByClient,
        Self::ServerCertificate,
        Self::Protocol,
        Self::TimedOut,
        Self::Closed,
        Self::GivenUp,
    ];

    fn of(kind: io::ErrorKind, tls: Option<&rustls::Error>) -> Self {
        match tls {
            Some(rustls::Error::InvalidCertificate(_)) => Self::ClientCertificate,
            Some(rustls::Error::AlertReceived(_)) => Self::RefusedByClient,
            // What is our own fault has no kind of its own in the library.
            Some(rustls::Error::General(_)) => Self::ServerCertificate,
            Some(_) => Self::Protocol,
            None if kind == io::ErrorKind::TimedOut => Self::TimedOut,
            None => Self::Closed,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::ClientCertificate => "client_certificate",
            Self::RefusedByClient => "refused_by_client",
            Self::ServerCertificate => "server_certificate",
            Self::Protocol => "protocol",
            Self::TimedOut => "timed_out",
            Self::Closed => "closed",
            Self::GivenUp => "given_up",
        }
    }
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// In words for an operator, where the library has a name of a type.
fn not_accepted(error: &CertificateError) -> String {
    use CertificateError as E;
    match error {
        E::Expired => "it has expired".into(),
        E::ExpiredContext { not_after, .. } => format!("it has expired at {}", at(*not_after)),
        E::NotValidYet => "it is not valid yet".into(),
        E::NotValidYetContext { not_before, .. } => {
            format!("it is not valid before {}", at(*not_before))
        }
        E::UnknownIssuer => "it does not lead to a root that is trusted here".into(),
        E::Revoked => "it is revoked".into(),
        E::BadEncoding => "it cannot be read".into(),
        E::BadSignature => "its signature does not verify: another CA of the same name has made it, or it was changed".into(),
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => "it is not one for clients".into(),
        other => other.to_string(),
    }
}

fn at(time: UnixTime) -> String {
    shown(OffsetDateTime::UNIX_EPOCH + Duration::from_secs(time.as_secs()))
}

#[cfg(test)]
mod tests {
    use ca_core::TrustBundle;
    use ca_core::testing::{TestCa, now};
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
    use rustls::{ClientConfig, RootCertStore};
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::{TcpListener, TcpStream};
    use tokio_rustls::TlsConnector;

    use super::super::certificate::ServingCertificate;
    use super::super::listener::accept;
    use super::super::tls::{CurrentTls, Dialect, MinVersion, TlsPolicy};
    use super::*;
    use crate::logging::testing::Log;

    /// A listener for members of the mesh of `ca`, whose certificate is of it too, if it has one.
    async fn listener(ca: &TestCa, has_certificate: bool) -> (SocketAddr, Handshakes) {
        let names = ["localhost".parse().unwrap()];
        let (key, chain) = ca.identity(&names, Duration::from_secs(600), now());
        let roots = ca.roots();
        let certificate = ServingCertificate { key, chain, roots };
        let dialect = Dialect {
            policy: TlsPolicy::new(None, MinVersion::Tls12, &[]).unwrap(),
            protocols: &[b"h2"],
        };
        let certificate = has_certificate.then_some(&certificate);
        let config = dialect.with(certificate, Some(&ca.roots())).unwrap();
        let handshakes = Handshakes::of(&"grpc".into());
        let tls = CurrentTls::new(config, handshakes.clone());
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(accept(socket, tls, |connection, _| async {
            drop(connection);
        }));
        (address, handshakes)
    }

    /// Connects as a member of `own`, if that is one, who trusts `roots`.
    async fn connect(address: SocketAddr, roots: &TrustBundle, own: Option<&TestCa>) {
        let mut store = RootCertStore::empty();
        let der = |der: &[u8]| CertificateDer::from(der.to_vec());
        for root in roots.certificates() {
            store.add(der(root.der())).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(store);
        let client = match own {
            None => client.with_no_client_auth(),
            Some(own) => {
                let (key, chain) = own.workload("shop", "cart");
                let key = PrivatePkcs8KeyDer::from(key.pkcs8_der().to_vec());
                let chain = chain.iter().map(|each| der(each.der())).collect();
                client
                    .with_client_auth_cert(chain, PrivateKeyDer::Pkcs8(key))
                    .unwrap()
            }
        };
        let socket = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        // With TLS 1.3 the client has done its part before it is judged: how this ends is for the server to say.
        let _ = TlsConnector::from(Arc::new(client))
            .connect(name, socket)
            .await;
    }

    /// The only kind that is counted, which is counted once.
    async fn counted(handshakes: &Handshakes) -> &'static str {
        let some = async {
            loop {
                let counts: Vec<_> = handshakes
                    .counts()
                    .filter(|(_, count)| *count > 0)
                    .collect();
                match &counts[..] {
                    [] => tokio::time::sleep(Duration::from_millis(1)).await,
                    [(reason, 1)] => return *reason,
                    more => panic!("{more:?}"),
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), some)
            .await
            .expect("a count in time")
    }

    #[tokio::test]
    async fn a_client_certificate_that_is_not_accepted_is_told_and_every_failure_is_counted_by_its_reason()
     {
        let (ca, other) = (TestCa::new("td"), TestCa::new("other"));
        let log = Log::begin();

        let (address, handshakes) = listener(&ca, true).await;
        connect(address, &ca.roots(), Some(&other)).await;
        assert_eq!(counted(&handshakes).await, "client_certificate");
        let [line] = &log.lines()[..] else {
            panic!("not one line: {:?}", log.lines());
        };
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["message"], "client certificate not accepted");
        assert_eq!(line["listener"], "grpc");
        let reason = "it does not lead to a root that is trusted here";
        assert_eq!(line["reason"], reason);
        assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.1:"));

        // Everybody who can connect can cause these: no lines.
        let (address, handshakes) = listener(&ca, true).await;
        connect(address, &other.roots(), None).await;
        assert_eq!(counted(&handshakes).await, "refused_by_client");
        let (address, handshakes) = listener(&ca, false).await;
        connect(address, &ca.roots(), None).await;
        assert_eq!(counted(&handshakes).await, "server_certificate");
        let (address, handshakes) = listener(&ca, true).await;
        let mut junk = TcpStream::connect(address).await.unwrap();
        junk.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert_eq!(counted(&handshakes).await, "protocol");
        let (address, handshakes) = listener(&ca, true).await;
        drop(TcpStream::connect(address).await.unwrap());
        assert_eq!(counted(&handshakes).await, "closed");
        assert_eq!(log.lines().len(), 1);

        // Members, and those without a certificate, are none of these.
        let (address, handshakes) = listener(&ca, true).await;
        connect(address, &ca.roots(), Some(&ca)).await;
        connect(address, &ca.roots(), None).await;
        drop(TcpStream::connect(address).await.unwrap());
        assert_eq!(counted(&handshakes).await, "closed");
    }

    #[test]
    fn a_reason_is_in_plain_words_with_its_time() {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let expired = CertificateError::ExpiredContext {
            time: at(1_800_000_001),
            not_after: at(1_800_000_000),
        };
        assert_eq!(
            not_accepted(&expired),
            "it has expired at 2027-01-15T08:00:00Z"
        );
        let early = CertificateError::NotValidYetContext {
            time: at(0),
            not_before: at(1_800_000_000),
        };
        assert_eq!(
            not_accepted(&early),
            "it is not valid before 2027-01-15T08:00:00Z"
        );
        let late = io::Error::from(io::ErrorKind::TimedOut);
        assert_eq!(Failure::of(late.kind(), None), Failure::TimedOut);
    }
}
