//! The SPIFFE Workload API: the same certificate for applications that have no Envoy.
//!
//! X.509 only. There is one identity, and whoever reaches the socket has it.

use std::{collections::HashMap, pin::Pin};

use ca_core::{Certificate, CertificateChain, PrivateKey, SpiffeId};
use ca_proto::spiffe::workload::{
    JwtBundlesRequest, JwtBundlesResponse, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
    ValidateJwtsvidResponse, X509BundlesRequest, X509BundlesResponse, X509svid, X509svidRequest,
    X509svidResponse, spiffe_workload_api_server::SpiffeWorkloadApi,
};
use futures_util::stream::{self, Stream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::{
    clock, roots_file,
    secrets::{Contents, SecretName, Secrets, Shelf, Version},
};

/// Answers `SpiffeWorkloadAPI`.
#[derive(Clone)]
pub(crate) struct WorkloadApi {
    secrets: Secrets,
    /// Ends the streams, which would otherwise live as long as their clients.
    stop: CancellationToken,
}

/// What a response stream is to the generated server.
type Updates<R> = Pin<Box<dyn Stream<Item = Result<R, Status>> + Send>>;

impl WorkloadApi {
    pub(crate) fn new(secrets: Secrets, stop: CancellationToken) -> Self {
        Self { secrets, stop }
    }

    /// A stream of what `view` makes of these secrets: now, or as soon as there is something, and again
    /// each time that they change.
    fn follow<R, V>(&self, names: &'static [SecretName], view: V) -> Response<Updates<R>>
    where
        R: Send + 'static,
        V: Fn(&Shelf) -> Result<Option<R>, Status> + Send + 'static,
    {
        let state = (self.clone(), view, Vec::new());
        let responses = stream::try_unfold(state, move |(mut api, view, sent)| async move {
            loop {
                let shelf = api.secrets.shelf();
                let current: Vec<_> = names.iter().map(|name| version(&shelf, name)).collect();
                if current != sent
                    && let Some(response) = view(&shelf)?
                {
                    return Ok(Some((response, (api, view, current))));
                }
                tokio::select! {
                    biased;
                    () = api.stop.cancelled() => return Ok(None),
                    changed = api.secrets.changed() => if changed.is_err() {
                        return Ok(None);
                    },
                }
            }
        });
        Response::new(Box::pin(responses))
    }
}

fn version(shelf: &Shelf, name: &SecretName) -> Option<Version> {
    shelf.last(name).map(|secret| secret.version().clone())
}

/// Requests that a browser can be tricked into cannot set this.
fn check_header<R>(request: &Request<R>) -> Result<(), Status> {
    let header = request.metadata().get("workload.spiffe.io");
    if header.is_some_and(|value| value == "true") {
        return Ok(());
    }
    Err(Status::invalid_argument(
        "security header missing from request",
    ))
}

/// The certificate, unless there is none yet or it has expired.
fn svid(shelf: &Shelf) -> Result<Option<X509svidResponse>, Status> {
    let pair = shelf.valid_at(&SecretName::KeyPair, clock::now());
    let (Some(pair), Some(bundle)) = (pair, bundle(shelf)) else {
        return Ok(None);
    };
    let Contents::KeyPair { chain, key, .. } = pair.contents() else {
        return Ok(None);
    };
    let unusable = |_| Status::internal("the certificate cannot be read");
    let chain = CertificateChain::from_pem(chain.as_bytes()).map_err(unusable)?;
    let key = PrivateKey::from_pem(key.as_bytes())
        .map_err(|_| Status::internal("the key cannot be read"))?;
    let svid = X509svid {
        spiffe_id: identity(&chain)?.to_string(),
        x509_svid: chain.iter().flat_map(Certificate::der).copied().collect(),
        x509_svid_key: key.pkcs8_der().to_vec(),
        bundle,
        hint: String::new(),
    };
    Ok(Some(X509svidResponse {
        svids: vec![svid],
        ..X509svidResponse::default()
    }))
}

/// The roots of the workload's own trust domain.
fn bundles(shelf: &Shelf) -> Result<Option<X509BundlesResponse>, Status> {
    let pair = shelf.last(&SecretName::KeyPair);
    let (Some(pair), Some(bundle)) = (pair, bundle(shelf)) else {
        return Ok(None);
    };
    let Contents::KeyPair { chain, .. } = pair.contents() else {
        return Ok(None);
    };
    let chain = CertificateChain::from_pem(chain.as_bytes())
        .map_err(|_| Status::internal("the certificate cannot be read"))?;
    let trust_domain = format!("spiffe://{}", identity(&chain)?.trust_domain());
    Ok(Some(X509BundlesResponse {
        bundles: HashMap::from([(trust_domain, bundle)]),
        ..X509BundlesResponse::default()
    }))
}

/// One after the other, DER.
fn bundle(shelf: &Shelf) -> Option<Vec<u8>> {
    let Contents::Roots { roots, .. } = shelf.last(&SecretName::Roots)?.contents() else {
        return None;
    };
    let (roots, _) = roots_file::readable(roots.as_bytes());
    Some(roots.iter().flat_map(Certificate::der).copied().collect())
}

/// A mounted certificate may have none.
fn identity(chain: &CertificateChain) -> Result<SpiffeId, Status> {
    let mut ids = chain.leaf().spiffe_ids();
    match (ids.next(), ids.next()) {
        (Some(id), None) => Ok(id.clone()),
        _ => Err(Status::permission_denied("no identity issued")),
    }
}

fn no_tokens() -> Status {
    Status::unimplemented("this agent has X.509 certificates only, no tokens")
}

#[tonic::async_trait]
impl SpiffeWorkloadApi for WorkloadApi {
    type FetchX509SVIDStream = Updates<X509svidResponse>;
    type FetchX509BundlesStream = Updates<X509BundlesResponse>;
    type FetchJWTBundlesStream = stream::Empty<Result<JwtBundlesResponse, Status>>;

    async fn fetch_x509svid(
        &self,
        request: Request<X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        check_header(&request)?;
        Ok(self.follow(&[SecretName::KeyPair, SecretName::Roots], svid))
    }

    async fn fetch_x509_bundles(
        &self,
        request: Request<X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        check_header(&request)?;
        Ok(self.follow(&[SecretName::Roots], bundles))
    }

    async fn fetch_jwtsvid(
        &self,
        request: Request<JwtsvidRequest>,
    ) -> Result<Response<JwtsvidResponse>, Status> {
        check_header(&request)?;
        Err(no_tokens())
    }

    async fn fetch_jwt_bundles(
        &self,
        request: Request<JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        check_header(&request)?;
        Err(no_tokens())
    }

    async fn validate_jwtsvid(
        &self,
        request: Request<ValidateJwtsvidRequest>,
    ) -> Result<Response<ValidateJwtsvidResponse>, Status> {
        check_header(&request)?;
        Err(no_tokens())
    }
}
