//! Which issuer of cert-manager is to sign, now.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::watching;

/// An issuer of cert-manager. In text: `Issuer.cert-manager.io/istio-ca`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuerRef {
    /// The object.
    pub name: String,
    /// Such as `Issuer`; nothing means that.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Such as `cert-manager.io`; nothing means that.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
}

impl fmt::Display for IssuerRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}/{}", self.kind, self.group, self.name)
    }
}

impl FromStr for IssuerRef {
    type Err = NotAnIssuer;

    fn from_str(text: &str) -> Result<Self, NotAnIssuer> {
        let refused = || NotAnIssuer(text.into());
        let (kind, name) = text.split_once('/').ok_or_else(refused)?;
        let (kind, group) = kind.split_once('.').ok_or_else(refused)?;
        if [name, kind, group].iter().any(|part| part.is_empty()) {
            return Err(refused());
        }
        Ok(Self {
            name: name.into(),
            kind: kind.into(),
            group: group.into(),
        })
    }
}

/// Text that names no issuer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no issuer: KIND.GROUP/NAME")]
pub struct NotAnIssuer(String);

/// Where a ConfigMap is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigMapRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Who says which issuer signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Issuers {
    /// This one, always.
    Fixed(IssuerRef),
    /// The one that a ConfigMap names in `issuer-name`, `issuer-kind` and `issuer-group`, as soon as it does.
    Followed {
        /// The ConfigMap, which may come and go.
        from: ConfigMapRef,
        /// Who signs while there is none.
        otherwise: Option<IssuerRef>,
    },
}

impl fmt::Display for Issuers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(issuer) => issuer.fmt(f),
            Self::Followed { from, otherwise } => {
                write!(f, "as ConfigMap {}/{} says", from.namespace, from.name)?;
                match otherwise {
                    Some(issuer) => write!(f, ", else {issuer}"),
                    None => Ok(()),
                }
            }
        }
    }
}

/// The issuer that signs now: taken once for each request, so a change never waits for requests under way.
#[derive(Clone, Debug)]
pub(super) struct CurrentIssuer {
    current: watch::Receiver<Option<IssuerRef>>,
    from: Option<ConfigMapRef>,
}

impl CurrentIssuer {
    /// The second is what must go on meanwhile.
    pub(super) fn new(
        client: Client,
        issuers: Issuers,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (start, from) = match issuers {
            Issuers::Fixed(issuer) => (Some(issuer), None),
            Issuers::Followed { from, otherwise } => (otherwise, Some(from)),
        };
        let (sender, current) = watch::channel(start.clone());
        let followed = from.clone();
        let upkeep = async move {
            let Some(from) = followed else {
                // Held: readers would take its end for news.
                let _held = sender;
                return std::future::pending().await;
            };
            let api = Api::<ConfigMap>::namespaced(client, &from.namespace);
            let only = format!("metadata.name={}", from.name);
            let config = watcher::Config::default().fields(&only);
            let mut choice = Choice::new(start);
            watching::for_ever("the issuer's ConfigMap", api, config, |event| {
                let chosen = choice.see(event);
                sender.send_if_modified(|current| {
                    let is_new = *current != chosen;
                    if is_new {
                        let issuer = chosen.as_ref().map(ToString::to_string);
                        tracing::info!(issuer, "another issuer signs from now on");
                        *current = chosen;
                    }
                    is_new
                });
            })
            .await;
        };
        (Self { current, from }, upkeep)
    }

    pub(super) fn get(&self) -> Option<IssuerRef> {
        self.current.borrow().clone()
    }

    pub(super) fn changes(&self) -> watch::Receiver<Option<IssuerRef>> {
        self.current.clone()
    }

    /// Who would say it.
    pub(super) fn place(&self) -> String {
        match &self.from {
            Some(from) => format!("ConfigMap {}/{} names none", from.namespace, from.name),
            None => String::new(),
        }
    }
}

/// What follows from what is seen of the ConfigMap.
struct Choice {
    start: Option<IssuerRef>,
    chosen: Option<IssuerRef>,
    is_listed: bool,
}

impl Choice {
    fn new(start: Option<IssuerRef>) -> Self {
        Self {
            chosen: start.clone(),
            start,
            is_listed: false,
        }
    }

    fn see(&mut self, event: Event<ConfigMap>) -> Option<IssuerRef> {
        match event {
            Event::Init => self.is_listed = false,
            Event::InitApply(map) => {
                self.is_listed = true;
                self.read(map);
            }
            Event::Apply(map) => self.read(map),
            // It was deleted while nobody watched.
            Event::InitDone if !self.is_listed => self.chosen = self.start.clone(),
            Event::InitDone => {}
            Event::Delete(_) => self.chosen = self.start.clone(),
        }
        self.chosen.clone()
    }

    fn read(&mut self, map: ConfigMap) {
        match issuer_of(&map.data.unwrap_or_default()) {
            Ok(issuer) => self.chosen = Some(issuer),
            // What signs goes on signing.
            Err(missing) => tracing::error!("the issuer's ConfigMap has no {missing}: not taken"),
        }
    }
}

fn issuer_of(data: &BTreeMap<String, String>) -> Result<IssuerRef, &'static str> {
    let value = |key: &'static str| {
        let value = data.get(key).map(|value| value.trim());
        value
            .filter(|value| !value.is_empty())
            .map(str::to_owned)
            .ok_or(key)
    };
    Ok(IssuerRef {
        name: value("issuer-name")?,
        kind: value("issuer-kind")?,
        group: value("issuer-group")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> ConfigMap {
        let data = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into()));
        ConfigMap {
            data: Some(data.collect()),
            ..ConfigMap::default()
        }
    }

    fn named(name: &str) -> ConfigMap {
        map(&[
            ("issuer-name", name),
            ("issuer-kind", "ClusterIssuer"),
            ("issuer-group", "cert-manager.io"),
        ])
    }

    fn name(issuer: Option<IssuerRef>) -> Option<String> {
        issuer.map(|issuer| issuer.name)
    }

    #[test]
    fn the_config_map_wins_while_it_is_there_and_complete() {
        let start: IssuerRef = "Issuer.cert-manager.io/start".parse().unwrap();
        let mut choice = Choice::new(Some(start));
        let start = Some("start".to_owned());
        let mut seen = |event| name(choice.see(event));
        assert_eq!(seen(Event::Init), start);
        assert_eq!(seen(Event::InitDone), start);
        assert_eq!(seen(Event::Apply(named("a"))), Some("a".into()));
        for incomplete in [
            map(&[("issuer-name", "b")]),
            named(""),
            ConfigMap::default(),
        ] {
            assert_eq!(seen(Event::Apply(incomplete)), Some("a".into()));
        }
        assert_eq!(seen(Event::Delete(named("a"))), start);
        seen(Event::Apply(named("b")));
        // The watch was closed, and what it missed is the deletion.
        assert_eq!(seen(Event::Init), Some("b".into()));
        assert_eq!(seen(Event::InitDone), start);
        seen(Event::Init);
        seen(Event::InitApply(named("c")));
        assert_eq!(seen(Event::InitDone), Some("c".into()));
    }

    #[test]
    fn without_an_issuer_at_the_start_there_is_none_until_the_config_map_names_one() {
        let mut choice = Choice::new(None);
        assert_eq!(choice.see(Event::InitDone), None);
        assert_eq!(name(choice.see(Event::Apply(named("a")))), Some("a".into()));
        assert_eq!(choice.see(Event::Delete(named("a"))), None);
    }

    #[test]
    fn an_issuer_in_text_is_read_back() {
        let text = "ClusterIssuer.example.com/a.b";
        let issuer: IssuerRef = text.parse().unwrap();
        assert_eq!(
            (
                issuer.kind.as_str(),
                issuer.group.as_str(),
                issuer.name.as_str()
            ),
            ("ClusterIssuer", "example.com", "a.b")
        );
        assert_eq!(issuer.to_string(), text);
        for bad in ["", "ca", "Issuer/ca", "Issuer.g/", ".g/ca", "Issuer./ca"] {
            assert!(bad.parse::<IssuerRef>().is_err(), "{bad}");
        }
    }
}
