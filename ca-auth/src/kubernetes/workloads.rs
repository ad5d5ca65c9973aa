//! The pods and service accounts of a cluster: what a token is bound to, and which pods share a node.

use std::collections::{HashMap, HashSet, VecDeque};

use k8s_openapi::api::core::v1::ServiceAccount as KubernetesAccount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::{Object, PartialObjectMeta};
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use crate::caller::{Pod, ServiceAccount};
use crate::jwt::Bound;
use crate::kubernetes::node_proxy::NodeProxyRefusal;

/// A pod, as far as it is read.
pub(super) type WatchedPod = Object<PodSpec, PodStatus>;

/// A service account, of which the API server sends nothing but the metadata.
pub(super) type WatchedAccount = PartialObjectMeta<KubernetesAccount>;

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PodSpec {
    pub(super) service_account_name: Option<Box<str>>,
    pub(super) node_name: Option<Box<str>>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct PodStatus {
    pub(super) phase: Option<Box<str>>,
}

/// What is known. A value without a connection: whoever has one tells it the news.
#[derive(Debug, Default)]
pub(super) struct Workloads {
    pods: ByName<PodEntry>,
    accounts: ByName<AccountEntry>,
    /// The pods of each node.
    nodes: HashMap<Box<str>, HashSet<PodName>>,
    gone: RecentlyGone,
}

/// Namespace and name.
type PodName = (Box<str>, Box<str>);

#[derive(Debug)]
struct PodEntry {
    uid: Box<str>,
    /// `None` for the image of a static pod: whoever runs the node puts such pods into any namespace, and they run as nobody.
    account: Option<Box<str>>,
    node: Option<Box<str>>,
    is_finished: bool,
    /// For one that is being deleted: when its containers are over at the latest.
    ends: Option<OffsetDateTime>,
}

impl PodEntry {
    /// Whether it is this service account of its own namespace.
    fn runs_as(&self, account: &ServiceAccount) -> bool {
        self.account.as_deref() == Some(account.name())
    }
}

#[derive(Debug)]
struct AccountEntry {
    uid: Box<str>,
    ends: Option<OffsetDateTime>,
}

/// Whether what a token is bound to is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Alive,
    Gone(Gone),
    /// Only the API server can tell.
    Unknown(NotKnown),
}

/// Why a token is no longer good although its time is not over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Gone {
    /// It has been deleted.
    #[error("its service account has been deleted")]
    Account,
    /// It has been deleted; another may have its name.
    #[error("its pod has been deleted")]
    Pod,
    /// Its containers have ended, and will not start again.
    #[error("its pod has finished")]
    Finished,
    /// The pod has another service account. Tokens of Kubernetes never say that.
    #[error("its pod has another service account")]
    OtherAccount,
    /// The pod is on another node. Tokens of Kubernetes never say that.
    #[error("its pod is on another node")]
    OtherNode,
}

/// What a watch cannot tell of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotKnown {
    /// Not heard of, or under another UID: it may be too new.
    #[error("its service account is not known")]
    Account,
    /// Not heard of, or under another UID: it may be too new.
    #[error("its pod is not known")]
    Pod,
    /// The token ends with something else than a pod.
    #[error("it is bound to an object that is not watched")]
    Bound,
    /// The token does not say which service account of this name.
    #[error("it has no UIDs")]
    NoUid,
    /// The API server has been away for too long.
    #[error("what is known of its pod is too old")]
    TooOld,
    /// Nothing has been heard of the cluster yet.
    #[error("the pods of the cluster are not known yet")]
    NothingYet,
}

impl Workloads {
    /// Whether what a token speaks of is still there.
    pub(super) fn standing(
        &self,
        account: &ServiceAccount,
        pod: Option<&Pod>,
        bound: &Bound,
        now: OffsetDateTime,
    ) -> Standing {
        let verdict = self
            .account_standing(account, bound, now)
            .and_then(|()| match pod {
                Some(pod) => self.pod_standing(account, pod, bound, now),
                None if bound.node.is_some() => Err(Standing::Unknown(NotKnown::Bound)),
                None => Ok(()),
            });
        match verdict {
            Err(standing) => standing,
            Ok(()) if bound.to_secret => Standing::Unknown(NotKnown::Bound),
            Ok(()) => Standing::Alive,
        }
    }

    fn account_standing(
        &self,
        account: &ServiceAccount,
        bound: &Bound,
        now: OffsetDateTime,
    ) -> Result<(), Standing> {
        let uid = bound.account_uid.as_deref().filter(|uid| !uid.is_empty());
        let uid = uid.ok_or(Standing::Unknown(NotKnown::NoUid))?;
        if self.gone.contains(uid) {
            return Err(Standing::Gone(Gone::Account));
        }
        let entry = self.accounts.get(account.namespace(), account.name());
        let entry = entry.filter(|entry| *entry.uid == *uid);
        let entry = entry.ok_or(Standing::Unknown(NotKnown::Account))?;
        match is_over(entry.ends, now) {
            true => Err(Standing::Gone(Gone::Account)),
            false => Ok(()),
        }
    }

    fn pod_standing(
        &self,
        account: &ServiceAccount,
        pod: &Pod,
        bound: &Bound,
        now: OffsetDateTime,
    ) -> Result<(), Standing> {
        if pod.uid.is_empty() {
            return Err(Standing::Unknown(NotKnown::NoUid));
        }
        if self.gone.contains(&pod.uid) {
            return Err(Standing::Gone(Gone::Pod));
        }
        let entry = self.pods.get(account.namespace(), &pod.name);
        let entry = entry.filter(|entry| *entry.uid == *pod.uid);
        let entry = entry.ok_or(Standing::Unknown(NotKnown::Pod))?;
        let is_elsewhere = bound
            .node
            .as_deref()
            .is_some_and(|node| entry.node.as_deref() != Some(node));
        let gone = if !entry.runs_as(account) {
            Gone::OtherAccount
        } else if entry.is_finished {
            Gone::Finished
        } else if is_over(entry.ends, now) {
            Gone::Pod
        } else if is_elsewhere {
            Gone::OtherNode
        } else {
            return Ok(());
        };
        Err(Standing::Gone(gone))
    }

    /// Whether `wanted` is the service account of a pod on the node of the caller's pod.
    pub(super) fn share_a_node(
        &self,
        caller: &ServiceAccount,
        pod: &Pod,
        wanted: &ServiceAccount,
    ) -> Result<(), NodeProxyRefusal> {
        let entry = self.pods.get(caller.namespace(), &pod.name);
        let entry = entry.ok_or(NodeProxyRefusal::PodUnknown)?;
        if *entry.uid != *pod.uid {
            return Err(NodeProxyRefusal::PodReplaced);
        }
        if !entry.runs_as(caller) {
            return Err(NodeProxyRefusal::OtherServiceAccount);
        }
        if entry.is_finished {
            return Err(NodeProxyRefusal::PodFinished);
        }
        let node = entry.node.as_deref().ok_or(NodeProxyRefusal::NoNode)?;
        // A node has about a hundred pods.
        let neighbours = self.nodes.get(node).into_iter().flatten();
        let is_wanted = |(namespace, name): &PodName| {
            **namespace == *wanted.namespace()
                && self
                    .pods
                    .get(namespace, name)
                    .is_some_and(|pod| pod.runs_as(wanted) && !pod.is_finished)
        };
        if neighbours.into_iter().any(is_wanted) {
            Ok(())
        } else {
            Err(NodeProxyRefusal::NotOnNode { node: node.into() })
        }
    }

    pub(super) fn pod_count(&self) -> usize {
        self.pods.len()
    }

    pub(super) fn account_count(&self) -> usize {
        self.accounts.len()
    }

    pub(super) fn all_pods(&mut self, all: Vec<WatchedPod>) {
        let before = std::mem::take(&mut self.pods);
        self.nodes.clear();
        for pod in all {
            self.apply_pod(pod);
        }
        for (namespace, name, entry) in before.into_all() {
            let now = self.pods.get(&namespace, &name);
            if now.is_none_or(|now| now.uid != entry.uid) {
                self.gone.add(entry.uid);
            }
        }
    }

    pub(super) fn apply_pod(&mut self, pod: WatchedPod) {
        let is_finished = pod
            .status
            .and_then(|status| status.phase)
            .is_some_and(|phase| matches!(&*phase, "Succeeded" | "Failed"));
        let Some((namespace, name, uid, ends)) = object(pod.metadata) else {
            return;
        };
        self.forget_pod(&namespace, &name, Some(&uid));
        if let Some(node) = &pod.spec.node_name {
            let pods = self.nodes.entry(node.clone()).or_default();
            pods.insert((namespace.clone(), name.clone()));
        }
        let entry = PodEntry {
            uid,
            // Where a pod says none, the API server has put `default` there. What is without one all the same has none.
            account: pod.spec.service_account_name,
            node: pod.spec.node_name,
            is_finished,
            ends,
        };
        self.pods.insert(namespace, name, entry);
    }

    pub(super) fn delete_pod(&mut self, pod: WatchedPod) {
        if let Some((namespace, name, uid, _)) = object(pod.metadata) {
            self.forget_pod(&namespace, &name, None);
            self.gone.add(uid);
        }
    }

    /// `successor` is the UID of what has the name from now on.
    fn forget_pod(&mut self, namespace: &str, name: &str, successor: Option<&str>) {
        let Some(entry) = self.pods.remove(namespace, name) else {
            return;
        };
        if let Some(node) = &entry.node
            && let Some(pods) = self.nodes.get_mut(node)
        {
            pods.remove(&(namespace.into(), name.into()));
            if pods.is_empty() {
                self.nodes.remove(node);
            }
        }
        if successor != Some(&*entry.uid) {
            self.gone.add(entry.uid);
        }
    }

    pub(super) fn all_accounts(&mut self, all: Vec<WatchedAccount>) {
        let before = std::mem::take(&mut self.accounts);
        for account in all {
            self.apply_account(account);
        }
        for (namespace, name, entry) in before.into_all() {
            let now = self.accounts.get(&namespace, &name);
            if now.is_none_or(|now| now.uid != entry.uid) {
                self.gone.add(entry.uid);
            }
        }
    }

    pub(super) fn apply_account(&mut self, account: WatchedAccount) {
        let Some((namespace, name, uid, ends)) = object(account.metadata) else {
            return;
        };
        if let Some(before) = self.accounts.remove(&namespace, &name)
            && before.uid != uid
        {
            self.gone.add(before.uid);
        }
        self.accounts
            .insert(namespace, name, AccountEntry { uid, ends });
    }

    pub(super) fn delete_account(&mut self, account: WatchedAccount) {
        if let Some((namespace, name, uid, _)) = object(account.metadata) {
            self.accounts.remove(&namespace, &name);
            self.gone.add(uid);
        }
    }
}

type Read = (Box<str>, Box<str>, Box<str>, Option<OffsetDateTime>);

/// Namespace, name, UID and end of an object. Every object of an API server has the first three.
fn object(metadata: ObjectMeta) -> Option<Read> {
    let ends = metadata
        .deletion_timestamp
        .and_then(|at| OffsetDateTime::from_unix_timestamp(at.0.as_second()).ok());
    Some((
        metadata.namespace?.into(),
        metadata.name?.into(),
        metadata.uid?.into(),
        ends,
    ))
}

/// As API servers judge it: with a minute for clocks that differ.
fn is_over(ends: Option<OffsetDateTime>, now: OffsetDateTime) -> bool {
    ends.is_some_and(|ends| ends.saturating_add(Duration::MINUTE) < now)
}

/// Objects by namespace and name, found without making a key.
#[derive(Debug)]
struct ByName<E>(HashMap<Box<str>, HashMap<Box<str>, E>>);

impl<E> Default for ByName<E> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<E> ByName<E> {
    fn get(&self, namespace: &str, name: &str) -> Option<&E> {
        self.0.get(namespace)?.get(name)
    }

    fn insert(&mut self, namespace: Box<str>, name: Box<str>, entry: E) {
        self.0.entry(namespace).or_default().insert(name, entry);
    }

    fn remove(&mut self, namespace: &str, name: &str) -> Option<E> {
        let names = self.0.get_mut(namespace)?;
        let entry = names.remove(name);
        if names.is_empty() {
            self.0.remove(namespace);
        }
        entry
    }

    fn len(&self) -> usize {
        self.0.values().map(HashMap::len).sum()
    }

    fn into_all(self) -> impl Iterator<Item = (Box<str>, Box<str>, E)> {
        self.0.into_iter().flat_map(|(namespace, names)| {
            names
                .into_iter()
                .map(move |(name, entry)| (namespace.clone(), name, entry))
        })
    }
}

/// UIDs of what has been deleted, so that its tokens are refused at once: an API server remembers for some seconds that
/// they were good. The oldest are forgotten first, which costs a question to the API server and nothing else.
#[derive(Debug, Default)]
struct RecentlyGone {
    uids: HashSet<Box<str>>,
    in_order: VecDeque<Box<str>>,
}

impl RecentlyGone {
    const LIMIT: usize = 16 * 1024;

    fn add(&mut self, uid: Box<str>) {
        if !self.uids.insert(uid.clone()) {
            return;
        }
        self.in_order.push_back(uid);
        if self.in_order.len() > Self::LIMIT
            && let Some(oldest) = self.in_order.pop_front()
        {
            self.uids.remove(&oldest);
        }
    }

    fn contains(&self, uid: &str) -> bool {
        self.uids.contains(uid)
    }
}

#[cfg(test)]
mod tests;
