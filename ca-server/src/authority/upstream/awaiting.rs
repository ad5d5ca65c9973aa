//! The time before there is a CA: nothing can be signed, not even the certificate of our own listener. So that
//! listener is closed, and whoever connects learns at once that it is to try again; the admin listener and the control
//! socket answer, and say what is waited for.

use std::io;
use std::os::fd::AsFd as _;
use std::time::Duration;

use ca_core::{BundleStore, TrustDomain};
use time::OffsetDateTime;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::oneshot;

use super::{Situation, Upstream, UpstreamHandle};
use crate::observed::{Server, Waiting};
use crate::{admin, control, output};

/// What answers while there is no CA, and what is known of the server then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meanwhile<'a> {
    pub(crate) admin: &'a TcpListener,
    pub(crate) control: &'a UnixListener,
    pub(crate) started: OffsetDateTime,
    pub(crate) trust_domain: &'a TrustDomain,
}

impl Meanwhile<'_> {
    /// Waits for the first certificate of `upstream`.
    pub(crate) async fn obtain(
        self,
        upstream: &mut Upstream,
        handle: &UpstreamHandle,
    ) -> io::Result<BundleStore> {
        let waiting = self.waiting("intermediate", handle.situation.clone());
        let waiting = Waiting {
            upstream: Some(handle.clone()),
            ..waiting
        };
        self.answer(waiting, upstream.obtain()).await?;
        upstream
            .bundles()
            .cloned()
            .ok_or_else(|| io::Error::other("there is no certificate"))
    }

    /// Does `work`, and says meanwhile what is waited for. `kind` is the CA's, as a report calls it.
    pub(crate) async fn answer_until<T>(
        self,
        kind: &'static str,
        situation: Situation,
        work: impl Future<Output = T>,
    ) -> io::Result<T> {
        self.answer(self.waiting(kind, situation), work).await
    }

    fn waiting(self, kind: &'static str, situation: Situation) -> Waiting {
        Waiting {
            started: self.started,
            trust_domain: self.trust_domain.clone(),
            kind,
            situation,
            upstream: None,
        }
    }

    async fn answer<T>(self, waiting: Waiting, work: impl Future<Output = T>) -> io::Result<T> {
        // A second handle to the same socket: the first goes on to the complete server.
        let twin = std::net::TcpListener::from(self.admin.as_fd().try_clone_to_owned()?);
        let admin = TcpListener::from_std(twin)?;
        output::announce(&format_args!(
            "mesh-ca ca-server {}\nwaiting for        {}\nadmin              {}\n",
            env!("CARGO_PKG_VERSION"),
            waiting.situation.wanted(),
            admin.local_addr()?
        ));
        let server = Server::Waiting(Box::new(waiting));
        let (end, ended) = oneshot::channel::<()>();
        let pages = tokio::spawn(admin::serve(admin, server.clone(), async move {
            // An error means that the sender is gone, which ends us as well.
            let _ = ended.await;
        }));
        let orders = async {
            control::serve(self.control, server).await;
            // It answers for as long as it is asked: the work is what ends.
            std::future::pending().await
        };
        let done = tokio::select! {
            done = work => done,
            done = orders => done,
        };
        drop(end);
        // A client that holds on to its connection would else be told for ever that nothing is there.
        let abort = pages.abort_handle();
        if tokio::time::timeout(PATIENCE, pages).await.is_err() {
            abort.abort();
        }
        Ok(done)
    }
}

const PATIENCE: Duration = Duration::from_secs(1);
