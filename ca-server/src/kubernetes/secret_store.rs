//! A CA in a Kubernetes Secret, laid out as Istio does it.
//!
//! One object holds all of it, so that an update by resource version is atomic, and the first of two writers wins. Istio
//! reads `ca-cert.pem` and `ca-key.pem` of it, and nothing else: what we keep beside them it leaves alone.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ca_core::crypto::AWS_LC_RS;
use ca_core::{
    AuthorityState, AuthorityStore, BoxFuture, PrivateKey, Revision, SigningKey as _, StoreError,
    Stored,
};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use zeroize::Zeroizing;

use super::call::{CallError, call};

/// Which of Istio's two Secrets it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CaSecret {
    /// That of a self-signed CA.
    SelfSigned,
    /// That of a plugged-in CA; in it, a self-signed one is marked.
    Cacerts,
}

impl CaSecret {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::SelfSigned => "istio-ca-secret",
            Self::Cacerts => "cacerts",
        }
    }
}

/// A Secret of one namespace. Cheap to clone.
#[derive(Clone)]
pub(crate) struct SecretStore {
    api: Api<Secret>,
    secret: CaSecret,
    namespace: String,
}

impl std::fmt::Debug for SecretStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SecretStore").field(&self.place()).finish()
    }
}

impl SecretStore {
    pub(crate) fn new(client: Client, namespace: &str, secret: CaSecret) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            secret,
            namespace: namespace.to_owned(),
        }
    }

    /// As an operator calls it.
    pub(crate) fn place(&self) -> PathBuf {
        PathBuf::from(format!("secret/{}/{}", self.namespace, self.secret.name()))
    }

    pub(crate) fn api(&self) -> &Api<Secret> {
        &self.api
    }

    pub(crate) fn name(&self) -> &'static str {
        self.secret.name()
    }

    /// The object, if there is one.
    pub(crate) async fn get(&self) -> Result<Option<Secret>, CallError> {
        call(self.api.get_opt(self.name())).await
    }

    fn read(&self, secret: &Secret) -> Result<Stored, StoreError> {
        let state = read(secret).map_err(|e| StoreError::Corrupt {
            path: self.place().join(e.name),
            cause: e.cause,
        })?;
        Ok(Stored::new(state, revision_of(secret)))
    }

    async fn create(&self, state: &AuthorityState) -> Result<Secret, StoreError> {
        let made = new_secret(self.secret, state);
        let created = call(self.api.create(&PostParams::default(), &made)).await;
        created.map_err(|error| match error.is_conflict() {
            true => StoreError::Conflict,
            false => StoreError::Unavailable(error.to_string()),
        })
    }

    async fn replace(&self, state: &AuthorityState, seen: &Revision) -> Result<Secret, StoreError> {
        // Read again, because what others keep in it (labels, further keys) is to stay.
        let found = self.get().await.map_err(store_error)?;
        let mut secret = found.ok_or(StoreError::Conflict)?;
        if revision_of(&secret) != *seen {
            return Err(StoreError::Conflict);
        }
        let data = secret.data.get_or_insert_default();
        write(state, data);
        // It carries its resource version: who has written since then makes this a conflict.
        let params = PostParams::default();
        let replaced = self.api.replace(self.name(), &params, &secret);
        call(replaced).await.map_err(store_error)
    }
}

impl AuthorityStore for SecretStore {
    fn load(&self) -> BoxFuture<'_, Result<Option<Stored>, StoreError>> {
        Box::pin(async {
            let secret = self.get().await.map_err(store_error)?;
            secret.map(|secret| self.read(&secret)).transpose()
        })
    }

    fn save(
        &self,
        state: AuthorityState,
        replacing: Option<Revision>,
    ) -> BoxFuture<'_, Result<Stored, StoreError>> {
        Box::pin(async move {
            let secret = match &replacing {
                None => self.create(&state).await?,
                Some(seen) => self.replace(&state, seen).await?,
            };
            Ok(Stored::new(state, revision_of(&secret)))
        })
    }
}

pub(crate) fn revision_of(secret: &Secret) -> Revision {
    Revision::new(secret.metadata.resource_version.clone().unwrap_or_default())
}

/// One text of a Secret.
pub(crate) fn text_of(secret: &Secret, name: &str) -> Option<Zeroizing<Vec<u8>>> {
    let text = secret.data.as_ref()?.get(name)?;
    Some(Zeroizing::new(text.0.clone()))
}

fn read(secret: &Secret) -> Result<AuthorityState, ca_core::StateFileError> {
    AuthorityState::from_files(|name| text_with_defaults(secret, name), &AWS_LC_RS)
}

/// Istio leaves out what it does not read, and after a renewal what is in `root-cert.pem` is the certificate of before: the
/// certificate that signs is a root in any case, and the first.
fn text_with_defaults(secret: &Secret, name: &str) -> Option<Zeroizing<Vec<u8>>> {
    let text = text_of(secret, name);
    let is_blank = |text: &[u8]| text.iter().all(u8::is_ascii_whitespace);
    match name {
        CHAIN => Some(text.filter(|text| !is_blank(text)).unwrap_or_default()),
        ROOTS => {
            let mut roots = text_of(secret, CERTIFICATE)?;
            roots.push(b'\n');
            roots.extend_from_slice(&text.unwrap_or_default());
            Some(roots)
        }
        // Stages are absent or complete; Istio's empty ones would be neither.
        _ => text,
    }
}

fn new_secret(secret: CaSecret, state: &AuthorityState) -> Secret {
    let mut data = BTreeMap::new();
    write(state, &mut data);
    data.insert(WORKLOAD_KEY.to_owned(), ByteString::default());
    if secret == CaSecret::Cacerts {
        data.insert(SELF_SIGNED_MARK.to_owned(), ByteString::default());
    }
    Secret {
        metadata: ObjectMeta {
            name: Some(secret.name().to_owned()),
            ..ObjectMeta::default()
        },
        type_: Some(TYPE.to_owned()),
        data: Some(data),
        ..Secret::default()
    }
}

/// Puts a state where another one may be.
fn write(state: &AuthorityState, data: &mut BTreeMap<String, ByteString>) {
    let files = state.to_files();
    for name in AuthorityState::FILE_NAMES {
        match files.iter().find(|(file, _)| *file == name) {
            // The same key in another encoding would be a change that nobody asked for.
            Some(_) if name == KEY && holds_key(data.get(name), state) => {}
            Some((_, text)) => {
                let text = ByteString(text.as_bytes().to_vec());
                data.insert(name.to_owned(), text);
            }
            None => {
                data.remove(name);
            }
        }
    }
}

fn holds_key(text: Option<&ByteString>, state: &AuthorityState) -> bool {
    let key = text.and_then(|text| PrivateKey::from_pem_with(&text.0, &AWS_LC_RS).ok());
    key.is_some_and(|key| key.public_key() == state.key().public_key())
}

/// What is gone has been changed by somebody else too.
#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn store_error(error: CallError) -> StoreError {
    if error.is_conflict() || error.is_not_found() {
        StoreError::Conflict
    } else {
        StoreError::Unavailable(error.to_string())
    }
}

/// Marks a CA in `cacerts` that nobody has plugged in.
pub(crate) const SELF_SIGNED_MARK: &str = "istio-generated";

const TYPE: &str = "istio.io/ca-root";
const KEY: &str = "ca-key.pem";
const CERTIFICATE: &str = "ca-cert.pem";
const CHAIN: &str = "cert-chain.pem";
const ROOTS: &str = "root-cert.pem";
/// Istio writes it, and has never anything to say in it.
const WORKLOAD_KEY: &str = "key.pem";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ca_core::testing::{TestCa, now};
    use ca_core::{KeyKind, RootParams};

    use super::*;

    const ROOT: &str = include_str!("../../../ca-core/testdata/istio/root.pem");
    const ROOT_KEY: &str = include_str!("../../../ca-core/testdata/istio/root-key.pem");

    /// As Istio writes it: its key in PKCS#1, empty chain and workload key.
    fn istios() -> Secret {
        let data = [
            (CERTIFICATE, ROOT),
            (KEY, ROOT_KEY),
            (ROOTS, ROOT),
            (CHAIN, ""),
            (WORKLOAD_KEY, ""),
        ];
        let data = data.map(|(name, text)| (name.to_owned(), ByteString(text.into())));
        Secret {
            data: Some(data.into()),
            type_: Some(TYPE.into()),
            ..Secret::default()
        }
    }

    fn without(mut secret: Secret, names: &[&str]) -> Secret {
        let data = secret.data.as_mut().unwrap();
        data.retain(|name, _| !names.contains(&name.as_str()));
        secret
    }

    fn params() -> RootParams {
        RootParams::new("cluster.local", Duration::from_secs(365 * 24 * 3600))
    }

    #[test]
    fn istios_root_is_taken_over_and_written_back_as_it_was() {
        for secret in [istios(), without(istios(), &[ROOTS, CHAIN, WORKLOAD_KEY])] {
            let state = read(&secret).unwrap();
            assert_eq!(state.roots().to_pem(), ROOT);
            assert_eq!(state.signing_certificate().to_pem(), ROOT);
            let mut data = secret.data.clone().unwrap();
            write(&state, &mut data);
            for (name, text) in secret.data.unwrap() {
                assert_eq!(data.get(&name), Some(&text), "{name}");
            }
        }
    }

    #[test]
    fn what_istio_has_left_of_before_a_renewal_stays_trusted_behind_what_signs() {
        let ca = TestCa::new("cluster.local");
        let renewed = ca.state().renew(&params(), now()).unwrap();
        let mut secret = new_secret(CaSecret::SelfSigned, &ca.state());
        let pem = renewed.signing_certificate().to_pem();
        secret
            .data
            .as_mut()
            .unwrap()
            .insert(CERTIFICATE.into(), ByteString(pem.into()));
        let state = read(&secret).unwrap();
        assert_eq!(state.roots().to_pem(), renewed.roots().to_pem());
        assert_eq!(state.roots().certificates()[0].to_pem(), pem);
    }

    #[test]
    fn every_stage_is_read_back_and_leaves_nothing_of_the_one_before_and_nothing_of_others_goes() {
        let steady = TestCa::new("cluster.local").state();
        let kind = KeyKind::EcdsaP256;
        let prepared = steady.prepare(&params(), kind, &AWS_LC_RS, now()).unwrap();
        let activated = prepared.activate(now()).unwrap();
        let retired = activated.retire().unwrap();
        let mut secret = new_secret(CaSecret::Cacerts, &steady);
        let data = secret.data.as_mut().unwrap();
        data.insert("of-others".into(), ByteString(b"x".to_vec()));
        for state in [&prepared, &activated, &retired] {
            write(state, secret.data.as_mut().unwrap());
            let found = read(&secret).unwrap();
            assert_eq!(found.rotation().name(), state.rotation().name());
            assert_eq!(found.roots().to_pem(), state.roots().to_pem());
            found.bundle(now()).unwrap();
        }
        let names: Vec<_> = secret.data.as_ref().unwrap().keys().collect();
        assert_eq!(
            names,
            [
                CERTIFICATE,
                KEY,
                CHAIN,
                SELF_SIGNED_MARK,
                WORKLOAD_KEY,
                "of-others",
                ROOTS
            ]
        );
    }

    #[test]
    fn what_does_not_read_is_told_by_its_name() {
        for name in [CERTIFICATE, KEY, ROOTS, CHAIN] {
            let mut secret = istios();
            let junk = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
            let junk = ByteString(junk.into());
            secret.data.as_mut().unwrap().insert(name.into(), junk);
            assert_eq!(read(&secret).unwrap_err().name, name);
        }
        assert_eq!(read(&without(istios(), &[KEY])).unwrap_err().name, KEY);
    }
}
